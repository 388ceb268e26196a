output "url" {
  description = "Where the service is."
  value       = google_cloud_run_v2_service.this.uri
}

output "name" {
  description = "Name of the service."
  value       = google_cloud_run_v2_service.this.name
}
