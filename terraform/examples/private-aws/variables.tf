variable "region" {
  description = "Region of everything."
  type        = string
  default     = "eu-central-1"
}

variable "zones" {
  description = "Zones of the region that the subnets are in, by name: a list that AWS may change would move them."
  type        = list(string)
  default     = ["eu-central-1a", "eu-central-1b"]

  validation {
    condition     = length(var.zones) >= 2 && length(var.zones) <= 16 && length(var.zones) == length(distinct(var.zones))
    error_message = "zones must have two to sixteen zones: one may fail."
  }
}

variable "vpc_cidr" {
  description = "Addresses of the network."
  type        = string
  default     = "10.40.0.0/16"

  validation {
    condition     = can(cidrsubnet(var.vpc_cidr, 4, 1))
    error_message = "vpc_cidr must be a range like 10.40.0.0/16."
  }
}

variable "client_cidrs" {
  description = "Addresses beyond the network that reach the service, by a connection to it."
  type        = list(string)
  default     = []
}

variable "bucket_name" {
  description = "Name of the bucket, which no other on AWS has."
  type        = string
}

variable "image" {
  description = "Container image in ECR of this account, by digest."
  type        = string
}

variable "ecr_repository_arn" {
  description = "Repository of ECR that has the image."
  type        = string
}

variable "certificate_arn" {
  description = "Certificate of the service, in ACM."
  type        = string
}

variable "gc_repositories" {
  description = "Repositories whose garbage is collected every night."
  type        = list(string)
  default     = []
}

variable "environment" {
  description = "How the service authenticates, and whatever else it is told; an issuer of tokens must be reached from the network."
  type        = map(string)
  default     = {}
}

variable "emails" {
  description = "Addresses that alarms are sent to."
  type        = list(string)
  default     = []
}
