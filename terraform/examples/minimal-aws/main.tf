# A bucket and the roles that use it, for a service that runs elsewhere on AWS: on ECS of this account.

provider "aws" {
  region = var.region
}

data "aws_caller_identity" "current" {}

module "identity" {
  source = "../../modules/identity-aws"

  bucket_arn     = module.storage.bucket_arn
  ecs_account_id = data.aws_caller_identity.current.account_id
}

module "storage" {
  source = "../../modules/storage-aws"

  bucket_name  = var.bucket_name
  gc_role_arns = [module.identity.gc_role_arn]
}
