locals {
  roles = toset(["reader", "writer", "gc"])

  bucket  = "projects/_/buckets/${var.bucket_name}"
  objects = "${local.bucket}/objects/${var.prefix}"

  # A service account that may create but not delete cannot overwrite either: on Google Cloud Storage,
  # that alone makes data create-only. What is overwritten (docs/format.md, "Objects") needs both.
  overwritten = join(" || ", [
    "resource.name.endsWith(\"/log/_hint.json\")",
    "resource.name.endsWith(\"/tlog/checkpoint\")",
    "resource.name.startsWith(\"${local.objects}.quarr/jobs/\")",
    "resource.name.startsWith(\"${local.objects}.quarr/commands/\")",
  ])

  # `extract` gives the text between two others, empty where they are not found: objects, shards and
  # staged changes of any repository.
  collected = join(" || ", concat(
    [for folder in ["objects", "shards", "staging"] : "resource.name.extract(\"${local.objects}{repository}/${folder}/\") != \"\""],
    [for folder in [".quarr/requests/", ".quarr/uploads/", "_probe-"] : "resource.name.startsWith(\"${local.objects}${folder}\")"],
  ))

  permissions = {
    read   = ["storage.objects.get", "storage.objects.list"]
    create = ["storage.objects.create"]
    delete = ["storage.objects.delete"]
  }

  # Who has which permissions, and under what condition.
  grants = {
    reader_read      = { who = "reader", may = "read", condition = null }
    writer_read      = { who = "writer", may = "read", condition = null }
    writer_create    = { who = "writer", may = "create", condition = null }
    writer_overwrite = { who = "writer", may = "delete", condition = local.overwritten }
    gc_read          = { who = "gc", may = "read", condition = null }
    gc_create        = { who = "gc", may = "create", condition = null }
    gc_overwrite     = { who = "gc", may = "delete", condition = local.overwritten }
    gc_collect       = { who = "gc", may = "delete", condition = local.collected }
  }
}

resource "google_service_account" "this" {
  for_each = local.roles

  project      = var.project_id
  account_id   = "${var.name}-${each.key}"
  display_name = "Quarr: ${each.key}"
}

# Roles of Google's have permissions besides, on folders, lists of access and uploads.
resource "google_project_iam_custom_role" "this" {
  for_each = local.permissions

  project     = var.project_id
  role_id     = "${replace(var.name, "-", "_")}_${each.key}"
  title       = "Quarr: ${each.key} objects"
  permissions = each.value
}

resource "google_storage_bucket_iam_member" "this" {
  for_each = local.grants

  bucket = var.bucket_name
  role   = google_project_iam_custom_role.this[each.value.may].name
  member = "serviceAccount:${google_service_account.this[each.value.who].email}"

  dynamic "condition" {
    for_each = each.value.condition[*]

    content {
      title      = each.key
      expression = condition.value
    }
  }
}

# No keys: pods are given short credentials by the cluster.
resource "google_service_account_iam_member" "gke" {
  for_each = { for name in local.roles : name => var.gke if var.gke != null }

  service_account_id = google_service_account.this[each.key].name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.project_id}.svc.id.goog[${each.value.namespace}/${each.value.service_accounts[each.key]}]"
}
