variable "name" {
  description = "Name of the service, and what its resources begin with."
  type        = string
  default     = "quarr"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,23}$", var.name))
    error_message = "name must have up to 24 lower-case letters, digits and hyphens, a letter first."
  }
}

variable "image" {
  description = "Container image, by digest (`…@sha256:…`): a tag can change under a running service."
  type        = string

  validation {
    condition     = can(regex("@sha256:[0-9a-f]{64}$", var.image))
    error_message = "image must end in @sha256: and 64 hexadecimal digits."
  }
}

variable "ecr_repository_arn" {
  description = "Repository of ECR that has the image; null for other registries."
  type        = string
  default     = null

  validation {
    condition     = var.ecr_repository_arn == null || can(regex("^arn:aws[a-z-]*:ecr:[a-z0-9-]+:[0-9]{12}:repository/[a-z0-9._/-]+$", var.ecr_repository_arn))
    error_message = "ecr_repository_arn must be the ARN of a repository."
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

variable "role_arn" {
  description = "Role of the service: the writer's, or the reader's for a service that only reads."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/", var.role_arn))
    error_message = "role_arn must be the ARN of a role."
  }
}

variable "gc" {
  description = "Garbage collection: the role, the repositories, and when (a schedule of EventBridge); null for none."
  type = object({
    role_arn     = string
    repositories = list(string)
    schedule     = optional(string, "cron(17 3 * * ? *)")
  })
  default = null

  validation {
    condition     = alltrue([for name in flatten([for gc in var.gc[*] : gc.repositories]) : can(regex("^[a-z0-9][a-z0-9._-]{0,62}$", name))])
    error_message = "gc.repositories must be names of repositories."
  }
}

variable "vpc_id" {
  description = "VPC of the service."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets of the tasks, in different zones."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "subnet_ids must have two subnets or more: one zone may fail."
  }
}

variable "load_balancer_subnet_ids" {
  description = "Subnets of the load balancer; null for those of the tasks."
  type        = list(string)
  default     = null
}

variable "internal" {
  description = "Whether the load balancer has only private addresses."
  type        = bool
  default     = true
  nullable    = false
}

variable "client_cidrs" {
  description = "Addresses that may reach the service."
  type        = list(string)

  validation {
    condition     = length(var.client_cidrs) > 0 && alltrue([for range in var.client_cidrs : can(cidrhost(range, 0))])
    error_message = "client_cidrs must be ranges like 10.0.0.0/8."
  }
}

variable "certificate_arn" {
  description = "Certificate of the load balancer, in ACM. There is no listener without TLS."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:acm:", var.certificate_arn))
    error_message = "certificate_arn must be the ARN of a certificate in ACM."
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

variable "environment" {
  description = "Further environment variables of the service. Not for secrets: anybody who may see the task definition reads them."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for name in keys(var.environment) : !can(regex("SECRET|PASSWORD|TOKEN|ACCESS_KEY", upper(name)))])
    error_message = "environment must not have secrets: name them in `secrets`, by reference."
  }
}

variable "secrets" {
  description = "Environment variables whose values are in Secrets Manager or Parameter Store: name to ARN."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for arn in values(var.secrets) : can(regex("^arn:aws[a-z-]*:(secretsmanager|ssm):", arn))])
    error_message = "secrets must be ARNs in Secrets Manager or Parameter Store."
  }
}

variable "cpu" {
  description = "CPU units of a task; 1024 are a core."
  type        = number
  default     = 2048
  nullable    = false

  validation {
    condition     = contains([512, 1024, 2048, 4096, 8192, 16384], var.cpu)
    error_message = "cpu must be what Fargate has: 512, 1024, 2048, 4096, 8192 or 16384."
  }
}

variable "memory_mib" {
  description = "Memory of a task. Quarr budgets three quarters of it."
  type        = number
  default     = 8192
  nullable    = false

  validation {
    condition     = var.memory_mib >= 1024 && var.memory_mib % 1024 == 0
    error_message = "memory_mib must be a multiple of 1024."
  }
}

variable "cache_gib" {
  description = "Disk cache of a task, on its ephemeral storage."
  type        = number
  default     = 40
  nullable    = false

  validation {
    condition     = var.cache_gib >= 1 && var.cache_gib <= 180
    error_message = "cache_gib must be from 1 to 180."
  }
}

variable "architecture" {
  description = "X86_64 or ARM64, as the image is built for."
  type        = string
  default     = "X86_64"
  nullable    = false

  validation {
    condition     = contains(["X86_64", "ARM64"], var.architecture)
    error_message = "architecture must be X86_64 or ARM64."
  }
}

variable "tasks_min" {
  description = "Fewest tasks."
  type        = number
  default     = 2
  nullable    = false

  validation {
    condition     = var.tasks_min >= 1
    error_message = "tasks_min must be at least 1."
  }
}

variable "tasks_max" {
  description = "Most tasks."
  type        = number
  default     = 10
  nullable    = false

  validation {
    condition     = var.tasks_max >= var.tasks_min
    error_message = "tasks_max must not be below tasks_min."
  }
}

variable "log_days" {
  description = "Days that logs are kept."
  type        = number
  default     = 365
  nullable    = false

  validation {
    condition     = contains([30, 90, 180, 365, 731, 1827, 3653], var.log_days)
    error_message = "log_days must be 30, 90, 180, 365, 731, 1827 or 3653."
  }
}

variable "log_kms_key_arn" {
  description = "KMS key of the logs, which CloudWatch Logs may use; null for keys of AWS."
  type        = string
  default     = null
}

variable "access_log_bucket" {
  description = "Bucket that takes the access log of the load balancer; null for none."
  type        = string
  default     = null
}

variable "permissions_boundary" {
  description = "ARN of the permissions boundary of the roles made here; null for none."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of everything made here."
  type        = map(string)
  default     = {}
  nullable    = false
}
