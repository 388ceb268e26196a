mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { region = "eu-central-1" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
}

variables {
  vpc_id          = "vpc-1"
  vpc_cidr        = "10.0.0.0/16"
  subnet_ids      = ["subnet-1"]
  route_table_ids = ["rtb-1"]
  bucket_arns     = ["arn:aws:s3:::quarr-example"]
}

run "only_the_named_buckets_are_reached" {
  assert {
    condition = toset(flatten([for statement in jsondecode(aws_vpc_endpoint.s3.policy).Statement : statement.Resource])) == toset([
      "arn:aws:s3:::quarr-example", "arn:aws:s3:::quarr-example/*", "arn:aws:s3:::prod-eu-central-1-starport-layer-bucket/*",
    ])
    error_message = "other buckets are reached"
  }
  assert {
    condition     = alltrue([for endpoint in aws_vpc_endpoint.interface : endpoint.private_dns_enabled && endpoint.vpc_endpoint_type == "Interface"])
    error_message = "an endpoint is not found by its name"
  }
}

run "buckets_by_pattern_are_refused" {
  command = plan
  variables {
    bucket_arns = ["arn:aws:s3:::*"]
  }
  expect_failures = [var.bucket_arns]
}

run "s3_has_a_route" {
  command = plan
  variables {
    services = ["s3", "sts"]
  }
  expect_failures = [var.services]
}
