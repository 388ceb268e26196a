mock_provider "helm" {}

variables {
  image     = { repository = "registry.example/quarr", digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000" }
  store_url = "gs://quarr-example"
  email     = "quarr-writer@example-project.iam.gserviceaccount.com"
  oidc      = { issuer = "https://issuer.example", audience = "quarr" }
}

run "pods_act_as_the_service_account" {
  assert {
    condition     = yamldecode(helm_release.this.values[0]).serviceAccount.annotations["iam.gke.io/gcp-service-account"] == var.email
    error_message = "the pods act as another"
  }
}

run "garbage_needs_an_account" {
  command = plan
  variables {
    gc_repositories = ["climate"]
  }
  expect_failures = [var.gc_email]
}

run "other_stores_are_refused" {
  command = plan
  variables {
    store_url = "s3://quarr-example"
  }
  expect_failures = [var.store_url]
}
