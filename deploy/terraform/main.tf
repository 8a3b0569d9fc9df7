# Names and settings that the other files share. One file for each thing: storage, network, rights, machines, logs, alarms.

data "aws_partition" "current" {}
data "aws_region" "current" {}
data "aws_caller_identity" "current" {}

locals {
  tags         = merge(var.tags, { Cluster = var.name })
  job_managers = { for index, subnet in var.job_manager_subnet_ids : tostring(index + 1) => subnet }

  rpc_port        = 6123
  rest_port       = 8081
  prometheus_port = 9249
  # Where workers listen for each other: the ports that Linux gives out.
  exchange_ports = { from = 32768, to = 60999 }

  log_group  = "/aws/kinesis-analytics/${var.name}"
  log_stream = "kinesis-analytics-log-stream"

  # Names, not addresses: certificates are for the names of the network, of which there is one for all machines.
  addresses = { for id, interface in aws_network_interface.job_manager : id => interface.private_dns_name }
  settings = merge({
    "jobmanager.rpc.address"                     = join(",", [for id, host in local.addresses : "${host}:${local.rpc_port}"])
    "execution.checkpointing.dir"                = "s3://${aws_s3_bucket.state.bucket}/checkpoints"
    "execution.checkpointing.savepoint-dir"      = "s3://${aws_s3_bucket.state.bucket}/savepoints"
    "s3.region"                                  = data.aws_region.current.name
    "metrics.level"                              = var.metrics_level
    "metrics.reporter.cloudwatch.enabled"        = "true"
    "metrics.reporter.cloudwatch.namespace"      = var.metrics_namespace
    "metrics.reporter.cloudwatch.region"         = data.aws_region.current.name
    "metrics.reporter.prom.host"                 = "0.0.0.0"
    "metrics.reporter.prom.port"                 = tostring(local.prometheus_port)
    "logs.cloudwatch.enabled"                    = "true"
    "logs.cloudwatch.group"                      = local.log_group
    "logs.cloudwatch.stream"                     = local.log_stream
    "logs.cloudwatch.region"                     = data.aws_region.current.name
    "security.ssl.internal.enabled"              = "true"
    "security.ssl.internal.certificate"          = "/etc/thalweg/tls/certificate.pem"
    "security.ssl.internal.private-key"          = "/etc/thalweg/tls/certificate.key"
    "security.ssl.internal.trusted-certificates" = "/etc/thalweg/tls/trusted-certificates.pem"
    "security.token-file"                        = "/etc/thalweg/tls/token"
  }, var.settings)
}
