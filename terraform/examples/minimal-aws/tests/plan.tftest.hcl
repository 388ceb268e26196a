mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::111122223333:role/quarr-gc" }
  }
}

variables {
  bucket_name = "quarr-example"
}

run "it_applies" {
  assert {
    condition     = output.store_url == "s3://quarr-example"
    error_message = "wrong URL: ${output.store_url}"
  }
}
