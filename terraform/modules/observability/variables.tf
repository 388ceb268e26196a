variable "name" {
  description = "Begins the names of the alarms."
  type        = string
  default     = "quarr"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,31}$", var.name))
    error_message = "name must have up to 32 lower-case letters, digits and hyphens, a letter first."
  }
}

variable "metrics" {
  description = "What is watched: the output `metrics` of the module service-ecs."
  type = object({
    load_balancer = string
    target_group  = string
    cluster       = string
    service       = string
  })
}

variable "emails" {
  description = "Addresses that alarms are sent to; each confirms once."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for email in var.emails : can(regex("^[^@ ]+@[^@ ]+$", email))])
    error_message = "emails must be addresses."
  }
}

variable "kms_key_arn" {
  description = "KMS key of the topic, which CloudWatch may use; null has one made: CloudWatch cannot use the key of SNS."
  type        = string
  default     = null
}

variable "latency_s" {
  description = "Seconds that the slowest of a hundred answers may take to begin."
  type        = number
  default     = 5
  nullable    = false

  validation {
    condition     = var.latency_s > 0
    error_message = "latency_s must be above 0."
  }
}

variable "error_percent" {
  description = "Most answers of a hundred that may be errors of the server."
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = var.error_percent > 0 && var.error_percent <= 100
    error_message = "error_percent must be above 0 and at most 100."
  }
}

variable "tags" {
  description = "Tags of what is made here."
  type        = map(string)
  default     = {}
  nullable    = false
}
