variable "project_id" {
  description = "Project of everything."
  type        = string
}

variable "region" {
  description = "Region of everything."
  type        = string
  default     = "europe-west3"
}

variable "bucket_name" {
  description = "Name of the bucket, which no other on Google Cloud has."
  type        = string
}

variable "image" {
  description = "Container image, by digest."
  type        = string
}

variable "invokers" {
  description = "Who may send requests: members of IAM, like `group:science@example.com`."
  type        = list(string)
  default     = []
}
