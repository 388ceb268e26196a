mock_provider "aws" {
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
}

variables {
  bucket_name = "quarr-example"
}

run "a_bucket_is_private_and_only_quarr_versions" {
  assert {
    condition = alltrue([
      aws_s3_bucket_public_access_block.this.block_public_acls,
      aws_s3_bucket_public_access_block.this.block_public_policy,
      aws_s3_bucket_public_access_block.this.ignore_public_acls,
      aws_s3_bucket_public_access_block.this.restrict_public_buckets,
    ])
    error_message = "public access is not blocked"
  }
  assert {
    condition     = aws_s3_bucket_versioning.this.versioning_configuration[0].status == "Suspended"
    error_message = "versioning is on"
  }
  assert {
    condition     = one(aws_s3_bucket_ownership_controls.this.rule).object_ownership == "BucketOwnerEnforced"
    error_message = "access lists count"
  }
  assert {
    condition     = one(one(aws_s3_bucket_server_side_encryption_configuration.this.rule).apply_server_side_encryption_by_default).sse_algorithm == "AES256"
    error_message = "objects are not encrypted with keys of S3"
  }
  assert {
    condition     = aws_s3_bucket_policy.this.policy == module.policies.bucket
    error_message = "the bucket has another policy"
  }
  assert {
    condition     = aws_s3_bucket.this.force_destroy == false
    error_message = "destroy would delete data"
  }
  assert {
    condition     = output.store_url == "s3://quarr-example"
    error_message = "wrong URL: ${output.store_url}"
  }
}

run "no_reachable_object_expires_by_its_age" {
  variables {
    prefix     = "data/"
    versioning = true
  }
  assert {
    condition = alltrue([
      for rule in aws_s3_bucket_lifecycle_configuration.this.rule :
      length(rule.expiration) == 0
      || one(rule.filter).prefix == "data/.quarr/uploads/"
      || one(rule.filter).prefix == "data/_probe-"
    ])
    error_message = "a rule expires current objects of repositories"
  }
  assert {
    condition     = length([for rule in aws_s3_bucket_lifecycle_configuration.this.rule : rule if length(rule.noncurrent_version_expiration) > 0]) == 1
    error_message = "older versions are kept for ever"
  }
  assert {
    condition     = length([for rule in aws_s3_bucket_lifecycle_configuration.this.rule : rule if length(rule.abort_incomplete_multipart_upload) > 0]) == 1
    error_message = "parts of uploads are kept for ever"
  }
  assert {
    condition     = output.store_url == "s3://quarr-example/data"
    error_message = "wrong URL: ${output.store_url}"
  }
}

run "a_key_encrypts" {
  variables {
    kms_key_arn = "arn:aws:kms:eu-central-1:111122223333:key/0c5e6f0a-0000-4000-8000-000000000000"
  }
  assert {
    condition     = one(one(aws_s3_bucket_server_side_encryption_configuration.this.rule).apply_server_side_encryption_by_default).sse_algorithm == "aws:kms"
    error_message = "the key is not used"
  }
}

run "names_with_dots_are_refused" {
  command = plan
  variables {
    bucket_name = "quarr.example"
  }
  expect_failures = [var.bucket_name]
}

run "imports_that_wait_keep_their_uploads" {
  command = plan
  variables {
    upload_days = 1
  }
  expect_failures = [var.upload_days]
}
