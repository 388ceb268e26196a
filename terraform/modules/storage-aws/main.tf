resource "aws_s3_bucket" "this" {
  #checkov:skip=CKV_AWS_21:Quarr versions data itself; the variable `versioning` says why and switches it on
  #checkov:skip=CKV_AWS_144:copies elsewhere are made by hash, see docs/deploying.md; replication would copy garbage as well
  #checkov:skip=CKV2_AWS_62:nothing listens to events of single objects; commits are the events, in the log
  #checkov:skip=CKV_AWS_18:an access log is a choice (`log_bucket`), it costs a request for each request
  #checkov:skip=CKV_AWS_145:a KMS key is a choice (`kms_key_arn`); without one S3 encrypts with its own keys
  bucket        = var.bucket_name
  force_destroy = var.force_destroy
  tags          = var.tags
}

module "policies" {
  source = "../policies-aws"

  bucket_arn   = "arn:${data.aws_partition.current.partition}:s3:::${var.bucket_name}"
  prefix       = var.prefix
  kms_key_arn  = var.kms_key_arn
  gc_role_arns = var.gc_role_arns
}

data "aws_partition" "current" {}

resource "aws_s3_bucket_public_access_block" "this" {
  bucket                  = aws_s3_bucket.this.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    # One request to KMS for many objects, not one for each.
    bucket_key_enabled = var.kms_key_arn != null

    apply_server_side_encryption_by_default {
      sse_algorithm     = var.kms_key_arn == null ? "AES256" : "aws:kms"
      kms_master_key_id = var.kms_key_arn
    }
  }
}

resource "aws_s3_bucket_versioning" "this" {
  bucket = aws_s3_bucket.this.id

  versioning_configuration {
    status = var.versioning ? "Enabled" : "Suspended"
  }
}

# Nothing here ends by its age that a repository refers to. Garbage collection alone knows what that is.
resource "aws_s3_bucket_lifecycle_configuration" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    id     = "abort-multipart"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = var.abort_multipart_days
    }
  }

  rule {
    id     = "forget-uploads"
    status = "Enabled"

    filter {
      prefix = "${var.prefix}.quarr/uploads/"
    }

    expiration {
      days = var.upload_days
    }
  }

  # What servers that may not delete leave of the probe at their start: no data.
  rule {
    id     = "forget-probes"
    status = "Enabled"

    filter {
      prefix = "${var.prefix}_probe-"
    }

    expiration {
      days = 1
    }
  }

  dynamic "rule" {
    for_each = var.versioning ? [var.noncurrent_days] : []

    content {
      id     = "forget-noncurrent"
      status = "Enabled"

      filter {}

      noncurrent_version_expiration {
        noncurrent_days = rule.value
      }
    }
  }

  depends_on = [aws_s3_bucket_versioning.this]
}

resource "aws_s3_bucket_logging" "this" {
  count = var.log_bucket == null ? 0 : 1

  bucket        = aws_s3_bucket.this.id
  target_bucket = var.log_bucket
  target_prefix = "${var.bucket_name}/"
}

resource "aws_s3_bucket_policy" "this" {
  bucket = aws_s3_bucket.this.id
  policy = module.policies.bucket

  # S3 refuses a policy while it changes the block.
  depends_on = [aws_s3_bucket_public_access_block.this]
}
