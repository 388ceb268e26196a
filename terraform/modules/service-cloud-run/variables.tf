variable "name" {
  description = "Name of the service."
  type        = string
  default     = "quarr"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,39}$", var.name))
    error_message = "name must have up to 40 lower-case letters, digits and hyphens, a letter first."
  }
}

variable "project_id" {
  description = "Project of the service."
  type        = string
}

variable "region" {
  description = "Region of the service: the bucket's."
  type        = string
}

variable "image" {
  description = "Container image, by digest (`…@sha256:…`): a tag can change under a running service."
  type        = string

  validation {
    condition     = can(regex("@sha256:[0-9a-f]{64}$", var.image))
    error_message = "image must end in @sha256: and 64 hexadecimal digits."
  }
}

variable "store_url" {
  description = "The store, as the storage module gives it."
  type        = string

  validation {
    condition     = can(regex("^gs://", var.store_url))
    error_message = "store_url must begin with gs://."
  }
}

variable "email" {
  description = "Service account of the service: the writer's, or the reader's for a service that only reads."
  type        = string

  validation {
    condition     = can(regex("@[a-z0-9-]+[.]iam[.]gserviceaccount[.]com$", var.email))
    error_message = "email must be that of a service account."
  }
}

variable "invokers" {
  description = "Who may send requests: members of IAM, like `group:science@example.com`."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for member in var.invokers : can(regex("^(user|group|serviceAccount|principal|principalSet|domain):.", member))])
    error_message = "invokers must be members by name; allUsers and allAuthenticatedUsers are everybody."
  }
}

variable "ingress" {
  description = "From where requests come: internal, internal-and-cloud-load-balancing or all."
  type        = string
  default     = "internal"
  nullable    = false

  validation {
    condition     = contains(["internal", "internal-and-cloud-load-balancing", "all"], var.ingress)
    error_message = "ingress must be internal, internal-and-cloud-load-balancing or all."
  }
}

variable "gc" {
  description = "Garbage collection: its service account, the account that starts it, the repositories, and when (as cron has it, in UTC); null for none."
  type = object({
    email         = string
    starter_email = string
    repositories  = list(string)
    schedule      = optional(string, "17 3 * * *")
  })
  default = null

  validation {
    condition     = alltrue([for name in flatten([for gc in var.gc[*] : gc.repositories]) : can(regex("^[a-z0-9][a-z0-9._-]{0,62}$", name))])
    error_message = "gc.repositories must be names of repositories."
  }
}

variable "environment" {
  description = "Further environment variables of the service. Not for secrets: anybody who may see the service reads them."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for name in keys(var.environment) : !can(regex("SECRET|PASSWORD|TOKEN|ACCESS_KEY", upper(name)))])
    error_message = "environment must not have secrets: name them in `secrets`, by reference."
  }
}

variable "secrets" {
  description = "Environment variables whose values are in Secret Manager: name to the secret and its version."
  type = map(object({
    secret  = string
    version = string
  }))
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for secret in values(var.secrets) : can(regex("^[0-9]+$", secret.version))])
    error_message = "secrets must name a version by number: `latest` changes under a running service."
  }
}

variable "cpu" {
  description = "Cores of an instance."
  type        = number
  default     = 4
  nullable    = false

  validation {
    condition     = contains([1, 2, 4, 6, 8], var.cpu)
    error_message = "cpu must be what Cloud Run has: 1, 2, 4, 6 or 8."
  }
}

variable "memory_gib" {
  description = "Memory of an instance, of which Quarr budgets three quarters. Cloud Run has no disk: there is no cache on one."
  type        = number
  default     = 16
  nullable    = false

  validation {
    condition     = var.memory_gib >= 2 && var.memory_gib <= 32
    error_message = "memory_gib must be from 2 to 32."
  }
}

variable "concurrency" {
  description = "Requests an instance takes at once."
  type        = number
  default     = 80
  nullable    = false

  validation {
    condition     = var.concurrency >= 1 && var.concurrency <= 1000
    error_message = "concurrency must be from 1 to 1000."
  }
}

variable "instances_min" {
  description = "Instances that are always there: 0 starts one when a request comes."
  type        = number
  default     = 1
  nullable    = false
}

variable "instances_max" {
  description = "Most instances."
  type        = number
  default     = 10
  nullable    = false

  validation {
    condition     = var.instances_max >= max(1, var.instances_min)
    error_message = "instances_max must not be below instances_min, nor 0."
  }
}

variable "vpc" {
  description = "Network and subnetwork that requests of the service leave by; null for Google's own. The subnetwork needs Private Google Access."
  type = object({
    network    = string
    subnetwork = string
  })
  default = null
}

variable "labels" {
  description = "Labels of the service."
  type        = map(string)
  default     = {}
  nullable    = false
}
