variable "bucket_arn" {
  description = "ARN of the bucket."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:s3:::[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.bucket_arn))
    error_message = "bucket_arn must be the ARN of a bucket, like arn:aws:s3:::example."
  }
}

variable "prefix" {
  description = "Prefix of the store in the bucket: empty, or with a slash at its end."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^([A-Za-z0-9._-]+/)*$", var.prefix))
    error_message = "prefix must be empty or end in a slash, of letters, digits and . _ - in each part: a * or ? would mean others in policies."
  }
}

variable "kms_key_arn" {
  description = "ARN of the KMS key the bucket encrypts with; null for keys of S3."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a key; an alias cannot be named in policies."
  }
}

variable "gc_role_arns" {
  description = "ARNs of the roles that collect garbage. The bucket lets nobody else delete, its account's administrators included; empty leaves this to the roles' own policies."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for arn in var.gc_role_arns : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+$", arn))])
    error_message = "gc_role_arns must be ARNs of roles, without wildcards."
  }
}
