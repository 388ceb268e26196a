locals {
  # Pods of these service accounts act as those of Google Cloud: the annotation is one half of Workload
  # Identity, the identity module has the other. There are no keys.
  values = {
    image = var.image
    store = { url = var.store_url }
    auth  = { oidc = var.oidc }
    serviceAccount = {
      annotations = { "iam.gke.io/gcp-service-account" = var.email }
    }
    gc = {
      repositories = var.gc_repositories
      serviceAccount = {
        annotations = { for name, email in { "iam.gke.io/gcp-service-account" = var.gc_email } : name => email if email != null }
      }
    }
  }
}

resource "helm_release" "this" {
  name             = var.name
  namespace        = var.namespace
  create_namespace = true
  chart            = coalesce(var.chart, "${path.module}/../../../deploy/helm/quarr")

  # A version that does not become ready gives way to the one before.
  atomic          = true
  cleanup_on_fail = true
  wait            = true
  timeout         = 600

  values = concat([yamlencode(local.values)], var.values)
}
