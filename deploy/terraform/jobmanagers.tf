# One job manager in each subnet of the list, with an address and a disk that stay when its machine is replaced.

data "aws_subnet" "job_manager" {
  for_each = local.job_managers

  id = each.value
}

resource "aws_network_interface" "job_manager" {
  for_each = local.job_managers

  subnet_id       = each.value
  security_groups = [aws_security_group.job_manager.id]
  description     = "Job manager ${each.key} of the Thalweg cluster ${var.name}"
  tags            = merge(local.tags, { Name = "thalweg-${var.name}-jobmanager-${each.key}" })
}

resource "aws_ebs_volume" "job_manager" {
  for_each = local.job_managers

  availability_zone = data.aws_subnet.job_manager[each.key].availability_zone
  type              = "gp3"
  size              = var.job_manager_volume_gib
  encrypted         = true
  tags              = merge(local.tags, { Name = "thalweg-${var.name}-jobmanager-${each.key}" })
}

resource "aws_instance" "job_manager" {
  for_each = local.job_managers

  ami                  = var.ami_id
  instance_type        = var.job_manager_instance_type
  iam_instance_profile = aws_iam_instance_profile.machine["jobmanager"].name
  tags                 = merge(local.tags, { Name = "thalweg-${var.name}-jobmanager-${each.key}" })

  user_data = templatefile("${path.module}/templates/user-data.sh.tftpl", {
    kind    = "jobmanager"
    other   = "taskmanager"
    package = var.package
    region  = data.aws_region.current.name
    secret  = var.security_secret_arn
    # As Linux names the disk of an instance of today's kinds.
    disk = "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_${replace(aws_ebs_volume.job_manager[each.key].id, "-", "")}"
    configuration = yamlencode(merge({
      "jobmanager.id"             = each.key
      "jobmanager.bind-host"      = "0.0.0.0"
      "jobmanager.rpc.port"       = tostring(local.rpc_port)
      "jobmanager.peers"          = join(",", [for id, host in local.addresses : "${id}=${host}:${local.rpc_port}"])
      "jobmanager.data-dir"       = "/var/lib/thalweg/jobmanager"
      "rest.bind-address"         = "0.0.0.0"
      "rest.port"                 = tostring(local.rest_port)
      "security.ssl.rest.enabled" = "true"
    }, local.settings))
  })

  network_interface {
    device_index         = 0
    network_interface_id = aws_network_interface.job_manager[each.key].id
  }

  root_block_device {
    volume_type = "gp3"
    volume_size = 16
    encrypted   = true
  }

  metadata_options {
    http_tokens = "required"
  }

  lifecycle {
    # A new image or new settings must not stop all job managers at once. They are replaced one after the other: see README.md.
    ignore_changes = [ami, user_data]
  }
}

resource "aws_volume_attachment" "job_manager" {
  for_each = local.job_managers

  device_name = "/dev/xvdf"
  volume_id   = aws_ebs_volume.job_manager[each.key].id
  instance_id = aws_instance.job_manager[each.key].id
  # So that nothing writes to a disk that is taken away.
  stop_instance_before_detaching = true
}
