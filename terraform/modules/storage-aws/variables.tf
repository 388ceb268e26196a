variable "bucket_name" {
  description = "Name of the bucket, which is for one Quarr store alone."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.bucket_name))
    error_message = "bucket_name must have 3 to 63 lower-case letters, digits and hyphens (dots break TLS)."
  }
}

variable "prefix" {
  description = "Prefix of the store in the bucket: empty, or with a slash at its end."
  type        = string
  default     = ""
  nullable    = false
}

variable "kms_key_arn" {
  description = "ARN of a KMS key to encrypt with; null for keys of S3."
  type        = string
  default     = null
}

variable "gc_role_arns" {
  description = "ARNs of the roles that collect garbage. Nobody else can delete then, administrators included, until the bucket's policy is changed."
  type        = list(string)
  default     = []
  nullable    = false
}

variable "versioning" {
  description = "Keep what was deleted or overwritten as older versions. Off: Quarr versions data itself, never overwrites it, and deletes only what nothing refers to; S3 versions would keep, and charge for, what garbage collection has freed."
  type        = bool
  default     = false
  nullable    = false
}

variable "noncurrent_days" {
  description = "With versioning: days until older versions, which nothing reads, are removed."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.noncurrent_days >= 1 && floor(var.noncurrent_days) == var.noncurrent_days
    error_message = "noncurrent_days must be a whole number from 1."
  }
}

variable "abort_multipart_days" {
  description = "Days until the parts of an upload that was never completed are removed."
  type        = number
  default     = 7
  nullable    = false

  validation {
    condition     = var.abort_multipart_days >= 1 && floor(var.abort_multipart_days) == var.abort_multipart_days
    error_message = "abort_multipart_days must be a whole number from 1."
  }
}

variable "upload_days" {
  description = "Days until a file that was sent to be imported, and is not read any more, is removed (`.quarr/uploads/`). No repository refers to one."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.upload_days >= 7 && floor(var.upload_days) == var.upload_days
    error_message = "upload_days must be a whole number from 7: an import that waits still needs its file."
  }
}

variable "log_bucket" {
  description = "Bucket that takes the access log; null for none. It must let logging.s3.amazonaws.com write."
  type        = string
  default     = null
}

variable "force_destroy" {
  description = "Let `terraform destroy` delete a bucket that has objects."
  type        = bool
  default     = false
  nullable    = false
}

variable "tags" {
  description = "Tags of the bucket."
  type        = map(string)
  default     = {}
  nullable    = false
}
