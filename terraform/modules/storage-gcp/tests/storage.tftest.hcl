mock_provider "google" {}

variables {
  bucket_name = "quarr-example"
  project_id  = "example"
  location    = "EUROPE-WEST3"
}

run "a_bucket_is_private_and_only_quarr_versions" {
  assert {
    condition     = google_storage_bucket.this.public_access_prevention == "enforced" && google_storage_bucket.this.uniform_bucket_level_access
    error_message = "the bucket can be made public"
  }
  assert {
    condition     = google_storage_bucket.this.versioning[0].enabled == false && google_storage_bucket.this.force_destroy == false
    error_message = "versioning is on, or destroy deletes data"
  }
  assert {
    condition     = output.store_url == "gs://quarr-example"
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
      for rule in google_storage_bucket.this.lifecycle_rule :
      one(rule.action).type == "AbortIncompleteMultipartUpload"
      || one(rule.condition).with_state == "ARCHIVED"
      || one(rule.condition).matches_prefix == tolist(["data/.quarr/uploads/"])
      || one(rule.condition).matches_prefix == tolist(["data/_probe-"])
    ])
    error_message = "a rule deletes current objects of repositories"
  }
}

run "soft_deletion_of_a_day_is_refused" {
  command = plan
  variables {
    soft_delete_days = 1
  }
  expect_failures = [var.soft_delete_days]
}
