output "reader_email" {
  description = "Service account that reads."
  value       = google_service_account.this["reader"].email
}

output "writer_email" {
  description = "Service account that reads and writes, and deletes no data."
  value       = google_service_account.this["writer"].email
}

output "gc_email" {
  description = "Service account that collects garbage: the only one that deletes data."
  value       = google_service_account.this["gc"].email
}

output "grants" {
  description = "Who has which permissions on the bucket, and under what condition."
  value = { for name, grant in local.grants : name => {
    who         = grant.who
    permissions = local.permissions[grant.may]
    condition   = grant.condition
  } }
}
