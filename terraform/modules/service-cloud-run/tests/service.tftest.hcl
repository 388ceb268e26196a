mock_provider "google" {}

variables {
  project_id = "example-project"
  region     = "europe-west3"
  image      = "registry.example/quarr@sha256:0000000000000000000000000000000000000000000000000000000000000000"
  store_url  = "gs://quarr-example"
  email      = "quarr-writer@example-project.iam.gserviceaccount.com"
}

run "nobody_reaches_it_unless_named" {
  assert {
    condition     = google_cloud_run_v2_service.this.ingress == "INGRESS_TRAFFIC_INTERNAL_ONLY" && length(google_cloud_run_v2_service_iam_member.invokers) == 0
    error_message = "somebody reaches the service"
  }
  assert {
    condition     = google_cloud_run_v2_service.this.template[0].service_account == var.email
    error_message = "the service acts as another"
  }
  assert {
    condition     = google_cloud_run_v2_service.this.template[0].containers[0].startup_probe[0].http_get[0].path == "/readyz"
    error_message = "it is ready before it is"
  }
}

run "everybody_is_refused" {
  command = plan
  variables {
    invokers = ["allUsers"]
  }
  expect_failures = [var.invokers]
}

run "garbage_is_collected_by_its_own_account" {
  variables {
    gc = {
      email         = "quarr-gc@example-project.iam.gserviceaccount.com"
      starter_email = "starter@example-project.iam.gserviceaccount.com"
      repositories  = ["climate", "ocean.v2"]
    }
  }
  assert {
    condition     = alltrue([for job in google_cloud_run_v2_job.gc : job.template[0].template[0].service_account == var.gc.email])
    error_message = "garbage is collected by the writer"
  }
  assert {
    condition     = google_cloud_run_v2_job.gc["ocean.v2"].template[0].template[0].containers[0].args == tolist(["gc", "ocean.v2"]) && length(google_cloud_scheduler_job.gc) == 2
    error_message = "a repository has no schedule"
  }
}

run "secrets_have_a_version" {
  command = plan
  variables {
    secrets = { QUARR_X = { secret = "x", version = "latest" } }
  }
  expect_failures = [var.secrets]
}
