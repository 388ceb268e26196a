mock_provider "google" {}

variables {
  prefix      = "data/"
  project_id  = "example-project"
  bucket_name = "quarr-example"
}

run "each_grant_is_as_said" {
  assert {
    condition     = alltrue([for name, grant in output.grants : google_storage_bucket_iam_member.this[name].member == "serviceAccount:${google_service_account.this[grant.who].email}"])
    error_message = "a permission goes to another account"
  }
  assert {
    condition     = alltrue([for name, grant in output.grants : try(one(google_storage_bucket_iam_member.this[name].condition).expression, null) == grant.condition])
    error_message = "a condition is missing"
  }
  assert {
    condition     = alltrue([for name, permissions in google_project_iam_custom_role.this : alltrue([for permission in permissions.permissions : can(regex("^storage\\.objects\\.(get|list|create|delete)$", permission))])])
    error_message = "a role may more than objects need"
  }
}

run "pods_act_by_workload_identity" {
  variables {
    gke = { namespace = "quarr" }
  }
  assert {
    condition     = google_service_account_iam_member.gke["gc"].member == "serviceAccount:example-project.svc.id.goog[quarr/quarr-gc]"
    error_message = "wrong member: ${google_service_account_iam_member.gke["gc"].member}"
  }
}

run "prefixes_that_would_change_conditions_are_refused" {
  command = plan
  variables {
    prefix = "a\") || true || (\"/"
  }
  expect_failures = [var.prefix]
}
