output "bucket_arn" {
  description = "ARN of the bucket."
  value       = "arn:${data.aws_partition.current.partition}:s3:::${aws_s3_bucket.this.bucket}"
}

output "bucket_name" {
  description = "Name of the bucket."
  value       = aws_s3_bucket.this.bucket
}

output "prefix" {
  description = "Prefix of the store in the bucket."
  value       = var.prefix
}

output "kms_key_arn" {
  description = "ARN of the KMS key, or null."
  value       = var.kms_key_arn
}

output "store_url" {
  description = "The store as Quarr takes it: `--store`."
  value       = trimsuffix("s3://${aws_s3_bucket.this.bucket}/${var.prefix}", "/")
}
