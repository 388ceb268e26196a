variable "name" {
  description = "Begins the names of what is made here."
  type        = string
  default     = "quarr"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,31}$", var.name))
    error_message = "name must have up to 32 lower-case letters, digits and hyphens, a letter first."
  }
}

variable "vpc_id" {
  description = "VPC the endpoints are in."
  type        = string
}

variable "vpc_cidr" {
  description = "Addresses of the VPC, which may reach the endpoints."
  type        = string

  validation {
    condition     = can(cidrhost(var.vpc_cidr, 0))
    error_message = "vpc_cidr must be a range like 10.0.0.0/16."
  }
}

variable "subnet_ids" {
  description = "Private subnets of the interface endpoints, one in each zone."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 1
    error_message = "subnet_ids must not be empty."
  }
}

variable "route_table_ids" {
  description = "Route tables of the private subnets: S3 is reached by a route, which costs nothing."
  type        = list(string)

  validation {
    condition     = length(var.route_table_ids) >= 1
    error_message = "route_table_ids must not be empty: S3 would not be reached."
  }
}

variable "bucket_arns" {
  description = "Buckets that are reached through the endpoint of S3; others are not. Layers of images in ECR are in a bucket of AWS's, which is added."
  type        = list(string)

  validation {
    condition     = length(var.bucket_arns) > 0 && alltrue([for arn in var.bucket_arns : can(regex("^arn:aws[a-z-]*:s3:::[a-z0-9.-]+$", arn))])
    error_message = "bucket_arns must be ARNs of buckets, without wildcards."
  }
}

variable "services" {
  description = "Services of AWS with an interface endpoint."
  type        = list(string)
  default     = ["ecr.api", "ecr.dkr", "kms", "logs", "secretsmanager", "sts"]
  nullable    = false

  validation {
    condition     = !contains(var.services, "s3")
    error_message = "services must not have s3: it has a route."
  }
}

variable "tags" {
  description = "Tags of what is made here."
  type        = map(string)
  default     = {}
  nullable    = false
}
