# A cluster of three job managers and two to ten task managers that reads a Kinesis stream and writes to S3, in a network that is there.

terraform {
  required_version = ">= 1.7"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.80"
    }
  }
}

variable "region" {
  description = "The region of the cluster."
  type        = string
  default     = "eu-central-1"
}

variable "vpc_id" {
  description = "The network."
  type        = string
}

variable "private_subnet_ids" {
  description = "Three private subnets, one in each zone."
  type        = list(string)
}

variable "ami_id" {
  description = "An image of Debian 12."
  type        = string
}

variable "package" {
  description = "The package on S3: bucket, key and SHA-256."
  type        = object({ bucket = string, key = string, sha256 = string })
}

variable "security_secret_arn" {
  description = "The secret with certificate, key, trusted certificates and token."
  type        = string
}

variable "stream_arn" {
  description = "The Kinesis stream that the job reads."
  type        = string
}

variable "result_bucket_arn" {
  description = "The bucket into which it writes."
  type        = string
}

provider "aws" {
  region = var.region
}

resource "aws_security_group" "clients" {
  name_prefix = "thalweg-clients-"
  description = "Machines that submit jobs"
  vpc_id      = var.vpc_id
}

resource "aws_sns_topic" "alarms" {
  name = "thalweg-alarms"
}

module "thalweg" {
  source = "../.."

  name                      = "orders"
  vpc_id                    = var.vpc_id
  job_manager_subnet_ids    = var.private_subnet_ids
  task_manager_subnet_ids   = var.private_subnet_ids
  client_security_group_ids = [aws_security_group.clients.id]
  ami_id                    = var.ami_id
  package                   = var.package
  security_secret_arn       = var.security_secret_arn

  task_managers                   = { min = 2, max = 10, desired = 2 }
  task_slots                      = 4
  task_manager_target_cpu_percent = 60

  kinesis_source_arns = [var.stream_arn]
  sink_bucket_arns    = [var.result_bucket_arn]

  settings = {
    "execution.checkpointing.interval" = "10 s"
    "state.backend.type"               = "rocksdb"
    "jobmanager.scheduler"             = "adaptive"
  }

  metrics_level    = "OPERATOR"
  alarm_topic_arns = [aws_sns_topic.alarms.arn]
  applications = {
    orders = {
      max_checkpoint_duration_ms = 60000
      max_millis_behind_latest   = { orders = 60000 }
      max_back_pressure_percent  = { "source -> parse" = 60 }
      operators = {
        totals = { task = "totals -> sink", operator = "totals", min_records_out_per_second = 10, max_watermark_lag_ms = 60000 }
      }
    }
  }
}

output "job_managers" {
  description = "For `thalweg --jobmanager`."
  value       = module.thalweg.job_manager_addresses
}
