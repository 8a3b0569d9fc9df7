# What a cluster is told. Everything with a default may be left out.

variable "name" {
  description = "The cluster's name: in the names of all its resources and of its log group."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,22}[a-z0-9]$", var.name))
    error_message = "The name has 3 to 24 characters: lower-case letters, digits and hyphens, a letter first, no hyphen last."
  }
}

variable "vpc_id" {
  description = "The network in which the cluster runs."
  type        = string
}

variable "job_manager_subnet_ids" {
  description = "One private subnet for each job manager, best in three zones. A subnet's place in the list is the number of its job manager: never reorder them."
  type        = list(string)

  validation {
    condition     = contains([1, 3, 5], length(var.job_manager_subnet_ids))
    error_message = "A cluster has 1, 3 or 5 job managers: any other number is no safer than the next smaller one."
  }
}

variable "task_manager_subnet_ids" {
  description = "Private subnets over which the task managers are spread."
  type        = list(string)

  validation {
    condition     = length(var.task_manager_subnet_ids) > 0
    error_message = "Task managers need at least one subnet."
  }
}

variable "client_security_group_ids" {
  description = "Security groups whose members may submit jobs and look at the cluster. Whoever can submit a job runs code in it."
  type        = list(string)
  default     = []
}

variable "monitoring_security_group_ids" {
  description = "Security groups whose members may read metrics (Prometheus)."
  type        = list(string)
  default     = []
}

variable "ami_id" {
  description = "An image of Debian 12 or newer, of the architecture for which the package was built."
  type        = string

  validation {
    condition     = can(regex("^ami-[0-9a-f]+$", var.ami_id))
    error_message = "An image is named as in ami-0123456789abcdef0."
  }
}

variable "package" {
  description = "The Debian package: its bucket and key on S3, and the SHA-256 of the file, which every machine checks before it installs it."
  type = object({
    bucket = string
    key    = string
    sha256 = string
  })

  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.package.sha256))
    error_message = "The SHA-256 has 64 hexadecimal digits in lower case; `sha256sum FILE` prints it."
  }

  validation {
    condition     = endswith(var.package.key, ".deb")
    error_message = "The package is a file that ends in .deb; `cargo xtask package` builds it."
  }
}

variable "job_manager_instance_type" {
  description = "Type of the machines of job managers. They compute little; what they need is a disk that syncs quickly."
  type        = string
  default     = "m7i.large"
}

variable "job_manager_volume_gib" {
  description = "Size of the disk on which a job manager keeps the replicated log. It outlives its machine."
  type        = number
  default     = 20

  validation {
    condition     = var.job_manager_volume_gib >= 8
    error_message = "The log and the job binaries need at least 8 GiB."
  }
}

variable "task_manager_instance_type" {
  description = "Type of the machines of task managers."
  type        = string
  default     = "m7i.xlarge"
}

variable "task_slots" {
  description = "Slots of each task manager, best as many as its machine has processors."
  type        = number
  default     = 4

  validation {
    condition     = var.task_slots >= 1 && floor(var.task_slots) == var.task_slots
    error_message = "A task manager has at least one slot."
  }
}

variable "task_managers" {
  description = "How many task managers there are: at least, at most, and at the beginning. Later the number is the group's, not Terraform's."
  type = object({
    min     = number
    max     = number
    desired = number
  })
  default = { min = 2, max = 10, desired = 2 }

  validation {
    condition = (
      0 <= var.task_managers.min
      && var.task_managers.min <= var.task_managers.desired
      && var.task_managers.desired <= var.task_managers.max
    )
    error_message = "The numbers are ordered: min <= desired <= max."
  }
}

variable "task_manager_target_cpu_percent" {
  description = "If set, task managers are added and removed so that they use about this share of their processors. For jobs of the adaptive scheduler, which follow the slots."
  type        = number
  default     = null

  validation {
    condition     = var.task_manager_target_cpu_percent == null ? true : var.task_manager_target_cpu_percent >= 10 && var.task_manager_target_cpu_percent <= 90
    error_message = "The target is 10 to 90 per cent, or null for a group that is only scaled by hand."
  }
}

variable "task_manager_volume_gib" {
  description = "Size of a task manager's disk: system, state in RocksDB, copies of checkpoints, logs."
  type        = number
  default     = 100

  validation {
    condition     = var.task_manager_volume_gib >= 16
    error_message = "A task manager's disk has at least 16 GiB."
  }
}

variable "security_secret_arn" {
  description = <<-TEXT
    A secret of AWS Secrets Manager with what machines need for TLS and clients for access: a JSON object with the texts `certificate`, `private_key`,
    `trusted_certificates` and `token`. README.md says how to make it.
  TEXT
  type        = string

  validation {
    condition     = can(regex("^arn:[^:]+:secretsmanager:", var.security_secret_arn))
    error_message = "The secret is named by its ARN, as in arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME."
  }
}

variable "security_key_arn" {
  description = "The key with which that secret is encrypted, if it is not the one that AWS keeps for Secrets Manager."
  type        = string
  default     = null
}

variable "settings" {
  description = "Further settings of all machines, by Thalweg's keys, as in { \"execution.checkpointing.interval\" = \"30 s\" }. They win over the module's own."
  type        = map(string)
  default     = {}
}

variable "force_destroy_state" {
  description = "Whether `terraform destroy` deletes a bucket that still has checkpoints in it."
  type        = bool
  default     = false
}

variable "noncurrent_state_days" {
  description = "How many days a deleted or overwritten object of the state bucket can still be brought back."
  type        = number
  default     = 3

  validation {
    condition     = var.noncurrent_state_days >= 1
    error_message = "S3 keeps noncurrent versions for at least a day."
  }
}

variable "savepoint_expiration_days" {
  description = "If set, savepoints are deleted this many days after they were taken. Without it they are kept until somebody deletes them."
  type        = number
  default     = null
}

variable "kinesis_source_arns" {
  description = "Kinesis streams that jobs read."
  type        = list(string)
  default     = []
}

variable "kinesis_sink_arns" {
  description = "Kinesis streams that jobs write."
  type        = list(string)
  default     = []
}

variable "firehose_sink_arns" {
  description = "Firehose delivery streams that jobs write."
  type        = list(string)
  default     = []
}

variable "source_bucket_arns" {
  description = "Buckets that jobs read."
  type        = list(string)
  default     = []
}

variable "sink_bucket_arns" {
  description = "Buckets that jobs write, and read: a file sink asks what it has begun."
  type        = list(string)
  default     = []
}

variable "kms_key_arns" {
  description = "Keys with which those streams and buckets are encrypted."
  type        = list(string)
  default     = []
}

variable "assumable_role_arns" {
  description = "Roles, of other accounts for example, that jobs may take on to read or write streams there."
  type        = list(string)
  default     = []
}

variable "with_session_manager" {
  description = "Whether machines may be reached with AWS Systems Manager's Session Manager. There is no SSH."
  type        = bool
  default     = false
}

variable "log_retention_days" {
  description = "How long logs are kept."
  type        = number
  default     = 30
}

variable "metrics_namespace" {
  description = "CloudWatch's namespace for the metrics."
  type        = string
  default     = "Thalweg"

  validation {
    condition     = !startswith(var.metrics_namespace, "AWS/")
    error_message = "CloudWatch keeps namespaces that begin with AWS/ for its own services."
  }
}

variable "metrics_level" {
  description = "The finest level of metrics that go to CloudWatch. Alarms of a task need TASK, those of an operator OPERATOR."
  type        = string
  default     = "APPLICATION"

  validation {
    condition     = contains(["APPLICATION", "TASK", "OPERATOR", "PARALLELISM"], var.metrics_level)
    error_message = "The level is APPLICATION, TASK, OPERATOR or PARALLELISM."
  }
}

variable "alarm_topic_arns" {
  description = "SNS topics that are told when an alarm begins and when it ends."
  type        = list(string)
  default     = []
}

variable "applications" {
  description = <<-TEXT
    Jobs that are watched, by name, and what is normal for them. `downtime`, failing checkpoints, heap and CPU are always watched; each other
    alarm exists if its limit is given.
  TEXT
  type = map(object({
    # Per cent of the budget of all task managers.
    max_heap_percent = optional(number, 90)
    max_cpu_percent  = optional(number, 80)
    # The highest normal values.
    max_checkpoint_duration_ms = optional(number)
    max_checkpoint_size_bytes  = optional(number)
    max_threads                = optional(number)
    # Stalls for memory: per cent of a minute, and how many more in a second.
    max_memory_stall_percent = optional(number)
    max_memory_stall_rate    = optional(number)
    # How far a Kinesis source may be behind, by stream.
    max_millis_behind_latest = optional(map(number), {})
    # By task: back pressure in per cent of the time, for five minutes.
    max_back_pressure_percent = optional(map(number), {})
    # Of one operator, as the dashboard and `thalweg describe` name it with its task.
    operators = optional(map(object({
      task                       = string
      operator                   = string
      min_records_out_per_second = optional(number)
      max_watermark_lag_ms       = optional(number)
    })), {})
  }))
  default = {}
}

variable "tags" {
  description = "Tags of all resources, beside Cluster."
  type        = map(string)
  default     = {}
}
