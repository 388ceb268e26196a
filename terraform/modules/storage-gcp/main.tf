resource "google_storage_bucket" "this" {
  #checkov:skip=CKV_GCP_78:Quarr versions data itself; the variable `versioning` says why and switches it on
  #checkov:skip=CKV_GCP_62:a usage log is a choice (`log_bucket`)
  name          = var.bucket_name
  project       = var.project_id
  location      = var.location
  force_destroy = var.force_destroy
  labels        = var.labels

  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  versioning {
    enabled = var.versioning
  }

  soft_delete_policy {
    retention_duration_seconds = var.soft_delete_days * 86400
  }

  # Nothing here ends by its age that a repository refers to. Garbage collection alone knows what that is.
  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = var.abort_multipart_days
    }
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age            = var.upload_days
      matches_prefix = ["${var.prefix}.quarr/uploads/"]
    }
  }

  # What servers that may not delete leave of the probe at their start: no data.
  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age            = 1
      matches_prefix = ["${var.prefix}_probe-"]
    }
  }

  dynamic "lifecycle_rule" {
    for_each = var.versioning ? [30] : []

    content {
      action {
        type = "Delete"
      }
      condition {
        days_since_noncurrent_time = lifecycle_rule.value
        with_state                 = "ARCHIVED"
      }
    }
  }

  dynamic "encryption" {
    for_each = var.kms_key_name[*]

    content {
      default_kms_key_name = encryption.value
    }
  }

  dynamic "logging" {
    for_each = var.log_bucket[*]

    content {
      log_bucket = logging.value
    }
  }
}
