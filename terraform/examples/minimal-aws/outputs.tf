output "store_url" {
  description = "The store as Quarr takes it: `--store`."
  value       = module.storage.store_url
}

output "writer_role_arn" {
  description = "Role of a service that reads and writes."
  value       = module.identity.writer_role_arn
}
