# Task managers have nothing that must outlive them, so that a group may add, remove and replace them. A machine that is told to end
# stops its service first, which moves its tasks to the others.

resource "aws_launch_template" "task_manager" {
  name_prefix            = "thalweg-${var.name}-taskmanager-"
  image_id               = var.ami_id
  instance_type          = var.task_manager_instance_type
  vpc_security_group_ids = [aws_security_group.task_manager.id]
  update_default_version = true
  tags                   = local.tags

  user_data = base64encode(templatefile("${path.module}/templates/user-data.sh.tftpl", {
    kind    = "taskmanager"
    other   = "jobmanager"
    package = var.package
    region  = data.aws_region.current.name
    secret  = var.security_secret_arn
    disk    = ""
    configuration = yamlencode(merge({
      "taskmanager.data-dir"          = "/var/lib/thalweg/taskmanager"
      "taskmanager.numberOfTaskSlots" = tostring(var.task_slots)
    }, local.settings))
  }))

  iam_instance_profile {
    name = aws_iam_instance_profile.machine["taskmanager"].name
  }

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_type           = "gp3"
      volume_size           = var.task_manager_volume_gib
      encrypted             = "true"
      delete_on_termination = "true"
    }
  }

  metadata_options {
    http_tokens = "required"
  }

  tag_specifications {
    resource_type = "instance"
    tags          = merge(local.tags, { Name = "thalweg-${var.name}-taskmanager" })
  }

  tag_specifications {
    resource_type = "volume"
    tags          = merge(local.tags, { Name = "thalweg-${var.name}-taskmanager" })
  }
}

resource "aws_autoscaling_group" "task_manager" {
  name_prefix               = "thalweg-${var.name}-taskmanager-"
  vpc_zone_identifier       = var.task_manager_subnet_ids
  min_size                  = var.task_managers.min
  max_size                  = var.task_managers.max
  desired_capacity          = var.task_managers.desired
  health_check_type         = "EC2"
  health_check_grace_period = 180
  # Machines of the oldest settings go first.
  termination_policies = ["OldestLaunchTemplate", "Default"]

  launch_template {
    id      = aws_launch_template.task_manager.id
    version = aws_launch_template.task_manager.latest_version
  }

  # New settings and new packages are rolled out by themselves, a new machine before an old one goes.
  instance_refresh {
    strategy = "Rolling"

    preferences {
      min_healthy_percentage = 100
      max_healthy_percentage = 110
      instance_warmup        = 120
    }
  }

  dynamic "tag" {
    for_each = local.tags

    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = false
    }
  }

  lifecycle {
    ignore_changes = [desired_capacity]
  }
}

resource "aws_autoscaling_policy" "task_manager" {
  for_each = var.task_manager_target_cpu_percent == null ? toset([]) : toset(["cpu"])

  name                      = "thalweg-${var.name}-cpu"
  autoscaling_group_name    = aws_autoscaling_group.task_manager.name
  policy_type               = "TargetTrackingScaling"
  estimated_instance_warmup = 180

  target_tracking_configuration {
    target_value = var.task_manager_target_cpu_percent

    predefined_metric_specification {
      predefined_metric_type = "ASGAverageCPUUtilization"
    }
  }
}
