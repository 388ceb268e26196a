output "bucket_name" {
  description = "Name of the bucket."
  value       = google_storage_bucket.this.name
}

output "prefix" {
  description = "Prefix of the store in the bucket."
  value       = var.prefix
}

output "store_url" {
  description = "The store as Quarr takes it: `--store`."
  value       = trimsuffix("gs://${google_storage_bucket.this.name}/${var.prefix}", "/")
}
