mock_provider "aws" {}
mock_provider "helm" {}

variables {
  image        = { repository = "registry.example/quarr", digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000" }
  store_url    = "s3://quarr-example"
  region       = "eu-central-1"
  cluster_name = "data"
  role_arn     = "arn:aws:iam::111122223333:role/quarr-writer"
  oidc         = { issuer = "https://issuer.example", audience = "quarr" }
}

run "pods_have_the_role_and_no_keys" {
  assert {
    condition     = aws_eks_pod_identity_association.this["service"].role_arn == var.role_arn && aws_eks_pod_identity_association.this["service"].service_account == yamldecode(helm_release.this.values[0]).serviceAccount.name
    error_message = "the pods' service account has another role"
  }
  assert {
    condition     = length(aws_eks_pod_identity_association.this) == 1
    error_message = "garbage collection has a role though there is none"
  }
}

run "further_values_come_last" {
  variables {
    values = ["replicas: {min: 4}"]
  }
  assert {
    condition     = helm_release.this.values == tolist([yamlencode(output.values), "replicas: {min: 4}"])
    error_message = "the values are others"
  }
}

run "garbage_needs_a_role" {
  command = plan
  variables {
    gc_repositories = ["climate"]
  }
  expect_failures = [var.gc_role_arn]
}

run "values_that_are_no_yaml_are_refused" {
  command = plan
  variables {
    values = ["a: ["]
  }
  expect_failures = [var.values]
}
