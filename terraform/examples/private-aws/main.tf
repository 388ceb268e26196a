# Everything in a network without a way to the internet: the store is reached by an endpoint, the service
# by whoever is in the network or connected to it. Data is encrypted with a key of this account.

provider "aws" {
  region = var.region

  default_tags {
    tags = { project = "quarr" }
  }
}

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

locals {
  account_id = data.aws_caller_identity.current.account_id
}

# --- Network ----------------------------------------------------------------------------------------

resource "aws_vpc" "this" {
  #checkov:skip=CKV2_AWS_11:a flow log is for the network this example stands for; yours has its own
  cidr_block           = var.vpc_cidr
  enable_dns_hostnames = true
  enable_dns_support   = true
  tags                 = { Name = "quarr" }
}

# What has no group of its own reaches nothing.
resource "aws_default_security_group" "this" {
  vpc_id = aws_vpc.this.id
}

resource "aws_subnet" "private" {
  count = length(var.zones)

  vpc_id            = aws_vpc.this.id
  availability_zone = var.zones[count.index]
  cidr_block        = cidrsubnet(var.vpc_cidr, 4, count.index)
  tags              = { Name = "quarr-${var.zones[count.index]}" }
}

resource "aws_route_table" "private" {
  vpc_id = aws_vpc.this.id
  tags   = { Name = "quarr-private" }
}

resource "aws_route_table_association" "private" {
  count = length(var.zones)

  subnet_id      = aws_subnet.private[count.index].id
  route_table_id = aws_route_table.private.id
}

module "endpoints" {
  source = "../../modules/network-endpoints"

  vpc_id          = aws_vpc.this.id
  vpc_cidr        = var.vpc_cidr
  subnet_ids      = aws_subnet.private[*].id
  route_table_ids = [aws_route_table.private.id]
  bucket_arns     = [module.storage.bucket_arn]
}

# --- Store ------------------------------------------------------------------------------------------

resource "aws_kms_key" "store" {
  description             = "Quarr: data"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      # The roles' own policies say who uses it.
      Sid       = "Account"
      Effect    = "Allow"
      Principal = { AWS = "arn:${data.aws_partition.current.partition}:iam::${local.account_id}:root" }
      Action    = ["kms:*"]
      Resource  = ["*"]
    }]
  })
}

module "identity" {
  source = "../../modules/identity-aws"

  bucket_arn     = module.storage.bucket_arn
  kms_key_arn    = aws_kms_key.store.arn
  ecs_account_id = local.account_id
}

module "storage" {
  source = "../../modules/storage-aws"

  bucket_name  = var.bucket_name
  kms_key_arn  = aws_kms_key.store.arn
  gc_role_arns = [module.identity.gc_role_arn]
}

# --- Service ----------------------------------------------------------------------------------------

module "service" {
  source = "../../modules/service-ecs"

  image              = var.image
  ecr_repository_arn = var.ecr_repository_arn
  store_url          = module.storage.store_url
  role_arn           = module.identity.writer_role_arn
  gc                 = { role_arn = module.identity.gc_role_arn, repositories = var.gc_repositories }
  vpc_id             = aws_vpc.this.id
  subnet_ids         = aws_subnet.private[*].id
  client_cidrs       = concat([var.vpc_cidr], var.client_cidrs)
  certificate_arn    = var.certificate_arn
  environment        = var.environment

  depends_on = [module.endpoints]
}

module "observability" {
  source = "../../modules/observability"

  metrics = module.service.metrics
  emails  = var.emails
}
