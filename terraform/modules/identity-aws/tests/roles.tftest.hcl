mock_provider "aws" {}

variables {
  bucket_arn     = "arn:aws:s3:::quarr-example"
  ecs_account_id = "111122223333"
}

run "each_role_has_its_policy" {
  assert {
    condition     = aws_iam_role_policy.this["reader"].policy == module.policies.reader && aws_iam_role_policy.this["writer"].policy == module.policies.writer && aws_iam_role_policy.this["gc"].policy == module.policies.gc
    error_message = "a role has the policy of another"
  }
  assert {
    condition     = alltrue([for name in keys(aws_iam_role.this) : aws_iam_role.this[name].name == "quarr-${name}"])
    error_message = "names are wrong"
  }
}

run "tasks_of_other_accounts_are_not_trusted" {
  assert {
    condition = alltrue([for role in aws_iam_role.this : alltrue([
      for statement in jsondecode(role.assume_role_policy).Statement :
      statement.Principal == { Service = "ecs-tasks.amazonaws.com" } && statement.Condition.StringEquals["aws:SourceAccount"] == "111122223333"
    ])])
    error_message = "somebody else can take a role"
  }
}

run "each_role_trusts_its_own_service_account" {
  variables {
    ecs_account_id = null
    eks = {
      cluster_arn = "arn:aws:eks:eu-central-1:111122223333:cluster/data"
      namespace   = "quarr"
    }
  }
  assert {
    condition = {
      for name, role in aws_iam_role.this :
      name => jsondecode(role.assume_role_policy).Statement[0].Condition.StringEquals["aws:RequestTag/kubernetes-service-account"]
    } == { reader = "quarr-reader", writer = "quarr", gc = "quarr-gc" }
    error_message = "a role trusts the wrong pods"
  }
}

run "roles_nobody_can_take_are_refused" {
  command = plan
  variables {
    ecs_account_id = null
  }
  expect_failures = [var.eks]
}
