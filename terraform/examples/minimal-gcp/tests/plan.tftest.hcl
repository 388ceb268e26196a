mock_provider "google" {
  mock_resource "google_service_account" {
    defaults = { email = "quarr-writer@example-project.iam.gserviceaccount.com" }
  }
}

variables {
  project_id  = "example-project"
  bucket_name = "quarr-example"
  image       = "registry.example/quarr@sha256:0000000000000000000000000000000000000000000000000000000000000000"
}

run "it_applies" {
  assert {
    condition     = output.store_url == "gs://quarr-example"
    error_message = "wrong URL: ${output.store_url}"
  }
}
