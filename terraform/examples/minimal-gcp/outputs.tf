output "url" {
  description = "Where the service is."
  value       = module.service.url
}

output "store_url" {
  description = "The store as Quarr takes it: `--store`."
  value       = module.storage.store_url
}
