# Who may connect to whom. Job managers: each other, task managers, clients. Task managers: each other's workers.

resource "aws_security_group" "job_manager" {
  name_prefix = "thalweg-${var.name}-jobmanager-"
  description = "Job managers of the Thalweg cluster ${var.name}"
  vpc_id      = var.vpc_id
  tags        = merge(local.tags, { Name = "thalweg-${var.name}-jobmanager" })

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_security_group" "task_manager" {
  name_prefix = "thalweg-${var.name}-taskmanager-"
  description = "Task managers of the Thalweg cluster ${var.name}"
  vpc_id      = var.vpc_id
  tags        = merge(local.tags, { Name = "thalweg-${var.name}-taskmanager" })

  lifecycle {
    create_before_destroy = true
  }
}

locals {
  groups = {
    job_manager  = aws_security_group.job_manager.id
    task_manager = aws_security_group.task_manager.id
  }
  clients  = { for index, id in var.client_security_group_ids : "client ${index + 1}" => id }
  monitors = { for index, id in var.monitoring_security_group_ids : "monitor ${index + 1}" => id }

  # What is let in: to whom, from whom, at which ports. Keys are known before anything exists.
  ingress = merge(
    {
      "job managers to job managers"   = { to = "job_manager", from = local.groups.job_manager, first = local.rpc_port, last = local.rpc_port }
      "task managers to job managers"  = { to = "job_manager", from = local.groups.task_manager, first = local.rpc_port, last = local.rpc_port }
      "task managers to task managers" = { to = "task_manager", from = local.groups.task_manager, first = local.exchange_ports.from, last = local.exchange_ports.to }
    },
    { for who, id in local.clients : "${who}: commands" => { to = "job_manager", from = id, first = local.rpc_port, last = local.rpc_port } },
    { for who, id in local.clients : "${who}: REST" => { to = "job_manager", from = id, first = local.rest_port, last = local.rest_port } },
    { for who, id in local.monitors : "${who}: job managers" => { to = "job_manager", from = id, first = local.prometheus_port, last = local.prometheus_port } },
    { for who, id in local.monitors : "${who}: task managers" => { to = "task_manager", from = id, first = local.prometheus_port, last = local.prometheus_port } },
  )
}

resource "aws_vpc_security_group_ingress_rule" "member" {
  for_each = local.ingress

  security_group_id            = local.groups[each.value.to]
  referenced_security_group_id = each.value.from
  ip_protocol                  = "tcp"
  from_port                    = each.value.first
  to_port                      = each.value.last
  description                  = each.key
  tags                         = local.tags
}

# Jobs talk to whatever they read and write, and machines to AWS and Debian.
resource "aws_vpc_security_group_egress_rule" "all" {
  for_each = local.groups

  security_group_id = each.value
  ip_protocol       = "-1"
  cidr_ipv4         = "0.0.0.0/0"
  description       = "everything outside"
  tags              = local.tags
}
