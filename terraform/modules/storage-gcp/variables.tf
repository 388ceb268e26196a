variable "bucket_name" {
  description = "Name of the bucket, which is for one Quarr store alone."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.bucket_name))
    error_message = "bucket_name must have 3 to 63 lower-case letters, digits and hyphens."
  }
}

variable "project_id" {
  description = "Project of the bucket."
  type        = string
}

variable "location" {
  description = "Region, dual-region or multi-region of the bucket, like EUROPE-WEST3."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9-]+$", var.location))
    error_message = "location must be the name of one, like EUROPE-WEST3."
  }
}

variable "prefix" {
  description = "Prefix of the store in the bucket: empty, or with a slash at its end."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^([A-Za-z0-9._-]+/)*$", var.prefix))
    error_message = "prefix must be empty or end in a slash, of letters, digits and . _ - in each part."
  }
}

variable "kms_key_name" {
  description = "Cloud KMS key to encrypt with (`projects/…/cryptoKeys/…`), which the service agent of Cloud Storage may use; null for keys of Google."
  type        = string
  default     = null
}

variable "versioning" {
  description = "Keep what was deleted or overwritten as older versions. Off: Quarr versions data itself, never overwrites it, and deletes only what nothing refers to; versions would keep, and charge for, what garbage collection has freed."
  type        = bool
  default     = false
  nullable    = false
}

variable "soft_delete_days" {
  description = "Days in which a deleted object can be restored, and is charged for: 0, or 7 to 90. A week lets a garbage collection that went wrong be undone."
  type        = number
  default     = 7
  nullable    = false

  validation {
    condition     = var.soft_delete_days == 0 || (var.soft_delete_days >= 7 && var.soft_delete_days <= 90)
    error_message = "soft_delete_days must be 0, or from 7 to 90."
  }
}

variable "abort_multipart_days" {
  description = "Days until the parts of an upload that was never completed are removed."
  type        = number
  default     = 7
  nullable    = false

  validation {
    condition     = var.abort_multipart_days >= 1
    error_message = "abort_multipart_days must be at least 1."
  }
}

variable "upload_days" {
  description = "Days until a file that was sent to be imported, and is not read any more, is removed (`.quarr/uploads/`). No repository refers to one."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.upload_days >= 7
    error_message = "upload_days must be at least 7: an import that waits still needs its file."
  }
}

variable "log_bucket" {
  description = "Bucket that takes the usage logs; null for none."
  type        = string
  default     = null
}

variable "force_destroy" {
  description = "Let `terraform destroy` delete a bucket that has objects."
  type        = bool
  default     = false
  nullable    = false
}

variable "labels" {
  description = "Labels of the bucket."
  type        = map(string)
  default     = {}
  nullable    = false
}
