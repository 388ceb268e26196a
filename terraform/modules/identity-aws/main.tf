module "policies" {
  source = "../policies-aws"

  bucket_arn  = var.bucket_arn
  prefix      = var.prefix
  kms_key_arn = var.kms_key_arn
}

locals {
  policies = {
    reader = module.policies.reader
    writer = module.policies.writer
    gc     = module.policies.gc
  }

  # No user and no key: what runs as ECS task or pod is given short credentials, and nothing else is.
  trust = { for role in keys(local.policies) : role => jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [for account in var.ecs_account_id[*] : {
        Sid       = "EcsTasks"
        Effect    = "Allow"
        Principal = { Service = "ecs-tasks.amazonaws.com" }
        Action    = ["sts:AssumeRole"]
        Condition = { StringEquals = { "aws:SourceAccount" = account } }
      }],
      [for eks in var.eks[*] : {
        Sid       = "EksPods"
        Effect    = "Allow"
        Principal = { Service = "pods.eks.amazonaws.com" }
        Action    = ["sts:AssumeRole", "sts:TagSession"]
        Condition = {
          StringEquals = {
            "aws:SourceAccount"                         = split(":", eks.cluster_arn)[4]
            "aws:RequestTag/kubernetes-namespace"       = eks.namespace
            "aws:RequestTag/kubernetes-service-account" = eks.service_accounts[role]
          }
          ArnEquals = { "aws:SourceArn" = eks.cluster_arn }
        }
      }],
    )
  }) }
}

resource "aws_iam_role" "this" {
  for_each = local.policies

  name                 = "${var.name}-${each.key}"
  description          = "Quarr: ${each.key}"
  assume_role_policy   = local.trust[each.key]
  permissions_boundary = var.permissions_boundary
  max_session_duration = 3600
  tags                 = var.tags
}

resource "aws_iam_role_policy" "this" {
  for_each = local.policies

  name   = "store"
  role   = aws_iam_role.this[each.key].name
  policy = each.value
}
