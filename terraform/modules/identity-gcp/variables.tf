variable "project_id" {
  description = "Project of the service accounts."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "project_id must be the id of a project."
  }
}

variable "name" {
  description = "Begins the names of the service accounts."
  type        = string
  default     = "quarr"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,20}$", var.name))
    error_message = "name must have up to 21 lower-case letters, digits and hyphens, a letter first."
  }
}

variable "bucket_name" {
  description = "Name of the store's bucket."
  type        = string
}

variable "prefix" {
  description = "Prefix of the store in the bucket: empty, or with a slash at its end."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^([A-Za-z0-9._-]+/)*$", var.prefix))
    error_message = "prefix must be empty or end in a slash, of letters, digits and . _ - in each part: a quote or brace would change the conditions."
  }
}

variable "gke" {
  description = "Namespace of GKE, and its service accounts, that act as the service accounts here; null for none."
  type = object({
    namespace = string
    service_accounts = optional(object({
      reader = optional(string, "quarr-reader")
      writer = optional(string, "quarr")
      gc     = optional(string, "quarr-gc")
    }), {})
  })
  default = null

  validation {
    condition     = alltrue([for name in flatten([for gke in var.gke[*] : [gke.namespace, values(gke.service_accounts)]]) : can(regex("^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", name))])
    error_message = "gke.namespace and gke.service_accounts must be names of Kubernetes."
  }
}
