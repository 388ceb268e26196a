output "s3_endpoint_id" {
  description = "Id of the endpoint of S3, for policies with `aws:SourceVpce`."
  value       = aws_vpc_endpoint.s3.id
}

output "security_group_id" {
  description = "Security group of the interface endpoints."
  value       = aws_security_group.endpoints.id
}
