mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_region" {
    defaults = { region = "eu-central-1" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::111122223333:role/quarr" }
  }
  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-central-1:111122223333:key/0c5e6f0a-0000-4000-8000-000000000000" }
  }
}

variables {
  bucket_name        = "quarr-example"
  image              = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/quarr@sha256:0000000000000000000000000000000000000000000000000000000000000000"
  ecr_repository_arn = "arn:aws:ecr:eu-central-1:111122223333:repository/quarr"
  certificate_arn    = "arn:aws:acm:eu-central-1:111122223333:certificate/1"
  gc_repositories    = ["climate"]
}

run "it_applies_without_a_way_to_the_internet" {
  assert {
    condition     = length(aws_route_table.private.route) == 0
    error_message = "the private subnets have a route out"
  }
  assert {
    condition     = aws_subnet.private[0].availability_zone == "eu-central-1a" && aws_subnet.private[0].cidr_block == "10.40.0.0/20" && aws_subnet.private[1].cidr_block == "10.40.16.0/20"
    error_message = "the subnets are others"
  }
  assert {
    condition     = output.store_url == "s3://quarr-example"
    error_message = "wrong URL: ${output.store_url}"
  }
}
