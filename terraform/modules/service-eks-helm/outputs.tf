output "values" {
  description = "What the chart is given, before `values`."
  value       = local.values
}

output "release" {
  description = "Name and namespace of the release."
  value       = { name = helm_release.this.name, namespace = helm_release.this.namespace }
}
