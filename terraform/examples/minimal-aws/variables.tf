variable "region" {
  description = "Region of the bucket."
  type        = string
  default     = "eu-central-1"
}

variable "bucket_name" {
  description = "Name of the bucket, which no other on AWS has."
  type        = string
}
