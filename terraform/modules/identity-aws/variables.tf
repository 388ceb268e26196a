variable "name" {
  description = "Begins the names of the roles."
  type        = string
  default     = "quarr"
  nullable    = false

  validation {
    condition     = can(regex("^[A-Za-z][A-Za-z0-9-]{0,31}$", var.name))
    error_message = "name must have up to 32 letters, digits and hyphens, a letter first."
  }
}

variable "bucket_arn" {
  description = "ARN of the store's bucket."
  type        = string
}

variable "prefix" {
  description = "Prefix of the store in the bucket: empty, or with a slash at its end."
  type        = string
  default     = ""
  nullable    = false
}

variable "kms_key_arn" {
  description = "ARN of the KMS key the bucket encrypts with; null for keys of S3."
  type        = string
  default     = null
}

variable "ecs_account_id" {
  description = "Account whose ECS tasks take the roles; null for none."
  type        = string
  default     = null

  validation {
    condition     = var.ecs_account_id == null || can(regex("^[0-9]{12}$", var.ecs_account_id))
    error_message = "ecs_account_id must have 12 digits."
  }
}

variable "eks" {
  description = "EKS cluster whose pods take the roles by Pod Identity, the namespace, and the service account of each role; null for none."
  type = object({
    cluster_arn = string
    namespace   = string
    service_accounts = optional(object({
      reader = optional(string, "quarr-reader")
      writer = optional(string, "quarr")
      gc     = optional(string, "quarr-gc")
    }), {})
  })
  default = null

  validation {
    condition     = alltrue([for eks in var.eks[*] : can(regex("^arn:aws[a-z-]*:eks:[a-z0-9-]+:[0-9]{12}:cluster/[A-Za-z0-9_-]+$", eks.cluster_arn))])
    error_message = "eks.cluster_arn must be the ARN of a cluster."
  }

  validation {
    condition     = alltrue([for name in flatten([for eks in var.eks[*] : [eks.namespace, values(eks.service_accounts)]]) : can(regex("^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", name))])
    error_message = "eks.namespace and eks.service_accounts must be names of Kubernetes."
  }

  validation {
    condition     = var.eks != null || var.ecs_account_id != null
    error_message = "nobody could take the roles: set eks or ecs_account_id."
  }
}

variable "permissions_boundary" {
  description = "ARN of the permissions boundary of the roles; null for none."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of the roles."
  type        = map(string)
  default     = {}
  nullable    = false
}
