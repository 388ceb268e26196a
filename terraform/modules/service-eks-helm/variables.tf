variable "name" {
  description = "Name of the release."
  type        = string
  default     = "quarr"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,39}$", var.name))
    error_message = "name must have up to 40 lower-case letters, digits and hyphens, a letter first."
  }
}

variable "namespace" {
  description = "Namespace of the release; the identity module names it as well."
  type        = string
  default     = "quarr"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.namespace))
    error_message = "namespace must be a name of Kubernetes."
  }
}

variable "image" {
  description = "Container image: its repository, and its digest (`sha256:…`): a tag can change under a running service."
  type = object({
    repository = string
    digest     = string
  })

  validation {
    condition     = can(regex("^sha256:[0-9a-f]{64}$", var.image.digest))
    error_message = "image.digest must be sha256: and 64 hexadecimal digits."
  }
}

variable "store_url" {
  description = "The store, as the storage module gives it."
  type        = string

  validation {
    condition     = can(regex("^s3://", var.store_url))
    error_message = "store_url must begin with s3://."
  }
}

variable "oidc" {
  description = "Whose tokens are accepted: the issuer and the audience that names this service; null for API keys alone."
  type = object({
    issuer   = string
    audience = string
  })
  default = null

  validation {
    condition     = alltrue([for oidc in var.oidc[*] : can(regex("^https://", oidc.issuer))])
    error_message = "oidc.issuer must begin with https://."
  }
}

variable "gc_repositories" {
  description = "Repositories whose garbage is collected every night."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for name in var.gc_repositories : can(regex("^[a-z0-9][a-z0-9._-]{0,62}$", name))])
    error_message = "gc_repositories must be names of repositories."
  }
}

variable "chart" {
  description = "The chart: a folder, an archive or an OCI reference; null for the one beside this module."
  type        = string
  default     = null
}

variable "values" {
  description = "Further values of the chart, as YAML; later ones count. `deploy/helm/quarr/values.yaml` has all of them."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for text in var.values : can(yamldecode(text))])
    error_message = "values must be YAML."
  }
}

variable "cluster_name" {
  description = "Name of the EKS cluster, which has the Pod Identity agent."
  type        = string
}

variable "region" {
  description = "Region of the bucket."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region must be the name of one, like eu-central-1."
  }
}

variable "role_arn" {
  description = "Role of the service: the writer's, or the reader's for a service that only reads."
  type        = string
}

variable "gc_role_arn" {
  description = "Role of garbage collection; null for none."
  type        = string
  default     = null

  validation {
    condition     = var.gc_role_arn != null || length(var.gc_repositories) == 0
    error_message = "gc_role_arn must be given where gc_repositories are."
  }
}

variable "service_accounts" {
  description = "Service accounts of the chart; those that the roles trust."
  type = object({
    service = optional(string, "quarr")
    gc      = optional(string, "quarr-gc")
  })
  default  = {}
  nullable = false
}

variable "tags" {
  description = "Tags of the associations."
  type        = map(string)
  default     = {}
  nullable    = false
}
