output "reader" {
  description = "Policy of a role that reads."
  value       = jsonencode({ Version = "2012-10-17", Statement = concat(local.read, local.decrypt) })
}

output "writer" {
  description = "Policy of a role that reads and writes, and deletes nothing."
  value       = jsonencode({ Version = "2012-10-17", Statement = concat(local.read, local.write, local.decrypt, local.encrypt) })
}

output "gc" {
  description = "Policy of a role that collects garbage: the only one that deletes."
  value       = jsonencode({ Version = "2012-10-17", Statement = concat(local.read, local.write, local.delete, local.decrypt, local.encrypt) })
}

output "bucket" {
  description = "Policy of the bucket: TLS only, data is created and never overwritten, only the roles of gc delete."
  value       = jsonencode({ Version = "2012-10-17", Statement = concat(local.guard, local.only_gc_deletes) })
}
