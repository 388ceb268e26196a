output "reader_role_arn" {
  description = "Role that reads."
  value       = aws_iam_role.this["reader"].arn
}

output "writer_role_arn" {
  description = "Role that reads and writes, and deletes nothing."
  value       = aws_iam_role.this["writer"].arn
}

output "gc_role_arn" {
  description = "Role that collects garbage: the only one that deletes. For `gc_role_arns` of the bucket."
  value       = aws_iam_role.this["gc"].arn
}
