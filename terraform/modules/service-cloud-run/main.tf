locals {
  environment = merge(
    {
      QUARR_STORE        = var.store_url
      QUARR_LISTEN       = "0.0.0.0:8686"
      QUARR_MEMORY_LIMIT = "${floor(var.memory_gib * 1024 * 3 / 4)}MiB"
    },
    var.environment,
  )

  ingress = {
    internal                          = "INGRESS_TRAFFIC_INTERNAL_ONLY"
    internal-and-cloud-load-balancing = "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER"
    all                               = "INGRESS_TRAFFIC_ALL"
  }
}

resource "google_cloud_run_v2_service" "this" {
  name                = var.name
  project             = var.project_id
  location            = var.region
  ingress             = local.ingress[var.ingress]
  deletion_protection = true
  labels              = var.labels

  template {
    service_account                  = var.email
    execution_environment            = "EXECUTION_ENVIRONMENT_GEN2"
    max_instance_request_concurrency = var.concurrency
    # Large answers are streamed for as long as it takes; an hour is the most there is.
    timeout = "3600s"
    labels  = var.labels

    scaling {
      min_instance_count = var.instances_min
      max_instance_count = var.instances_max
    }

    dynamic "vpc_access" {
      for_each = var.vpc[*]

      content {
        egress = "ALL_TRAFFIC"

        network_interfaces {
          network    = vpc_access.value.network
          subnetwork = vpc_access.value.subnetwork
        }
      }
    }

    containers {
      image = var.image
      # Cloud Run has checked who asks before a request arrives here, and no other way leads in.
      args = ["serve", "--insecure"]

      ports {
        name           = "http1"
        container_port = 8686
      }

      resources {
        limits = {
          cpu    = tostring(var.cpu)
          memory = "${var.memory_gib}Gi"
        }
        # Jobs and caches are worked on between requests.
        cpu_idle          = false
        startup_cpu_boost = true
      }

      dynamic "env" {
        for_each = local.environment

        content {
          name  = env.key
          value = env.value
        }
      }

      dynamic "env" {
        for_each = var.secrets

        content {
          name = env.key

          value_source {
            secret_key_ref {
              secret  = env.value.secret
              version = env.value.version
            }
          }
        }
      }

      startup_probe {
        period_seconds    = 5
        timeout_seconds   = 3
        failure_threshold = 12

        http_get {
          path = "/readyz"
          port = 8686
        }
      }

      liveness_probe {
        period_seconds    = 15
        timeout_seconds   = 5
        failure_threshold = 3

        http_get {
          path = "/livez"
          port = 8686
        }
      }
    }
  }
}

resource "google_cloud_run_v2_service_iam_member" "invokers" {
  for_each = toset(var.invokers)

  project  = var.project_id
  location = var.region
  name     = google_cloud_run_v2_service.this.name
  role     = "roles/run.invoker"
  member   = each.value
}

# --- Garbage collection -----------------------------------------------------------------------------

resource "google_cloud_run_v2_job" "gc" {
  for_each = toset(flatten([for gc in var.gc[*] : gc.repositories]))

  # Names of repositories may have dots and underscores, and be long.
  name                = "${substr(var.name, 0, 30)}-gc-${substr(sha256(each.value), 0, 8)}"
  project             = var.project_id
  location            = var.region
  deletion_protection = false
  labels              = var.labels

  template {
    task_count = 1

    template {
      service_account       = var.gc.email
      execution_environment = "EXECUTION_ENVIRONMENT_GEN2"
      timeout               = "86400s"
      max_retries           = 2

      containers {
        image = var.image
        args  = ["gc", each.value]

        resources {
          limits = { cpu = "2", memory = "8Gi" }
        }

        env {
          name  = "QUARR_STORE"
          value = var.store_url
        }
      }
    }
  }
}

resource "google_cloud_run_v2_job_iam_member" "starter" {
  for_each = google_cloud_run_v2_job.gc

  project  = var.project_id
  location = var.region
  name     = each.value.name
  role     = "roles/run.invoker"
  member   = "serviceAccount:${var.gc.starter_email}"
}

resource "google_cloud_scheduler_job" "gc" {
  for_each = google_cloud_run_v2_job.gc

  name             = each.value.name
  description      = "Collects garbage of the repository ${each.key}"
  project          = var.project_id
  region           = var.region
  schedule         = var.gc.schedule
  time_zone        = "Etc/UTC"
  attempt_deadline = "180s"

  http_target {
    http_method = "POST"
    uri         = "https://run.googleapis.com/v2/projects/${var.project_id}/locations/${var.region}/jobs/${each.value.name}:run"

    oauth_token {
      service_account_email = var.gc.starter_email
    }
  }
}
