# What the module plans, without any cloud: `terraform test` in this folder.

mock_provider "aws" {
  override_data {
    target = data.aws_region.current
    values = { name = "eu-central-1" }
  }
  override_data {
    target = data.aws_partition.current
    values = { partition = "aws" }
  }
  override_data {
    target = data.aws_caller_identity.current
    values = { account_id = "012345678901" }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{\"Version\":\"2012-10-17\",\"Statement\":[]}" }
  }
  mock_data "aws_subnet" {
    defaults = { availability_zone = "eu-central-1a" }
  }
  mock_resource "aws_network_interface" {
    defaults = { private_dns_name = "ip-10-0-0-7.internal" }
  }
  mock_resource "aws_ebs_volume" {
    defaults = { id = "vol-0123456789abcdef0" }
  }
  mock_resource "aws_s3_bucket" {
    defaults = { arn = "arn:aws:s3:::thalweg-orders-1", bucket = "thalweg-orders-1" }
  }
  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-central-1:012345678901:key/1" }
  }
  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123456789abcdef0", latest_version = 3 }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:eu-central-1:012345678901:log-group:/aws/kinesis-analytics/orders" }
  }
}

variables {
  name                    = "orders"
  vpc_id                  = "vpc-1"
  job_manager_subnet_ids  = ["subnet-a", "subnet-b", "subnet-c"]
  task_manager_subnet_ids = ["subnet-a", "subnet-b", "subnet-c"]
  ami_id                  = "ami-0123456789abcdef0"
  security_secret_arn     = "arn:aws:secretsmanager:eu-central-1:012345678901:secret:thalweg"
  package = {
    bucket = "packages"
    key    = "thalweg_0.1.0_amd64.deb"
    sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
  }
}

run "three_job_managers_and_a_group_of_task_managers" {
  assert {
    condition     = toset(keys(aws_instance.job_manager)) == toset(["1", "2", "3"])
    error_message = "There is a job manager for each subnet, numbered from 1."
  }
  assert {
    condition     = aws_autoscaling_group.task_manager.min_size == 2 && aws_autoscaling_group.task_manager.max_size == 10
    error_message = "The group has its bounds."
  }
  assert {
    condition     = output.job_manager_addresses == "ip-10-0-0-7.internal:6123,ip-10-0-0-7.internal:6123,ip-10-0-0-7.internal:6123"
    error_message = "Clients are told where all job managers are."
  }
  assert {
    condition     = length(aws_cloudwatch_metric_alarm.job) == 0
    error_message = "Without jobs there is nothing to watch."
  }
}

run "a_job_manager_keeps_its_number_address_and_disk" {
  assert {
    condition = alltrue([
      for line in [
        "systemctl mask thalweg-taskmanager.service",
        "disk=/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0",
        "\"jobmanager.id\": \"2\"",
        "\"jobmanager.peers\": \"1=ip-10-0-0-7.internal:6123,2=ip-10-0-0-7.internal:6123,3=ip-10-0-0-7.internal:6123\"",
        "\"execution.checkpointing.dir\": \"s3://thalweg-orders-1/checkpoints\"",
        "\"logs.cloudwatch.group\": \"/aws/kinesis-analytics/orders\"",
        "\"security.ssl.internal.enabled\": \"true\"",
        "--secret-id 'arn:aws:secretsmanager:eu-central-1:012345678901:secret:thalweg'",
      ] : strcontains(aws_instance.job_manager["2"].user_data, line)
    ])
    error_message = "The machine is set up as job manager 2: ${aws_instance.job_manager["2"].user_data}"
  }
  assert {
    condition     = !strcontains(aws_instance.job_manager["2"].user_data, "taskmanager.host")
    error_message = "A job manager is no task manager."
  }
}

run "a_task_manager_says_where_it_is_and_has_the_settings_that_were_given" {
  variables {
    settings = { "execution.checkpointing.interval" = "10 s", "metrics.level" = "TASK" }
  }
  assert {
    condition = alltrue([
      for line in [
        "systemctl mask thalweg-jobmanager.service",
        "\"taskmanager.numberOfTaskSlots\": \"4\"",
        "\"taskmanager.host\": \"$name\"",
        "\"execution.checkpointing.interval\": \"10 s\"",
        "\"metrics.level\": \"TASK\"",
        "'s3://packages/thalweg_0.1.0_amd64.deb'",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  $file",
      ] : strcontains(base64decode(aws_launch_template.task_manager.user_data), line)
    ])
    error_message = "The machine is set up as a task manager: ${base64decode(aws_launch_template.task_manager.user_data)}"
  }
  assert {
    condition     = !strcontains(base64decode(aws_launch_template.task_manager.user_data), "mkfs")
    error_message = "A task manager has no disk that outlives it."
  }
}

run "jobs_are_watched" {
  variables {
    metrics_level = "OPERATOR"
    applications = {
      orders = {
        max_threads               = 100
        max_memory_stall_percent  = 5
        max_memory_stall_rate     = 1
        max_millis_behind_latest  = { clicks = 60000 }
        max_back_pressure_percent = { parse = 60 }
        operators = {
          totals = { task = "totals -> sink", operator = "totals", min_records_out_per_second = 10, max_watermark_lag_ms = 60000 }
        }
      }
      idle = { max_heap_percent = 95 }
    }
  }
  assert {
    condition = toset(keys(aws_cloudwatch_metric_alarm.job)) == toset([
      "idle: downtime", "idle: failing checkpoints", "idle: heap", "idle: CPU",
      "orders: downtime", "orders: failing checkpoints", "orders: heap", "orders: CPU", "orders: threads",
      "orders: memory stalls", "orders: more memory stalls", "orders: behind clicks", "orders: back pressure of parse",
      "orders: too few records of totals", "orders: watermark lag of totals",
    ])
    error_message = "The alarms are: ${join(", ", keys(aws_cloudwatch_metric_alarm.job))}"
  }
  assert {
    condition = (
      aws_cloudwatch_metric_alarm.job["orders: heap"].threshold == 90
      && aws_cloudwatch_metric_alarm.job["idle: heap"].threshold == 95
      && aws_cloudwatch_metric_alarm.job["orders: CPU"].threshold == 80
      && aws_cloudwatch_metric_alarm.job["orders: back pressure of parse"].threshold == 600
      && aws_cloudwatch_metric_alarm.job["orders: back pressure of parse"].evaluation_periods == 5
      && aws_cloudwatch_metric_alarm.job["orders: downtime"].treat_missing_data == "breaching"
    )
    error_message = "Limits are those that are recommended, or given."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.job["orders: too few records of totals"].comparison_operator == "LessThanThreshold"
    error_message = "Too few records are below a limit."
  }
  assert {
    condition = (
      [for query in aws_cloudwatch_metric_alarm.job["orders: watermark lag of totals"].metric_query : query.expression if query.id == "e1"] == ["m1 - m2"]
      && [for query in aws_cloudwatch_metric_alarm.job["orders: failing checkpoints"].metric_query : query.expression if query.id == "e1"] == ["RATE(m1)"]
    )
    error_message = "What is computed of metrics is computed."
  }
  assert {
    condition = one([
      for query in aws_cloudwatch_metric_alarm.job["orders: behind clicks"].metric_query : query.metric[0].dimensions
    ]) == tomap({ Application = "orders", StreamName = "clicks" })
    error_message = "A metric has the dimensions with which it is reported."
  }
}

run "alarms_of_operators_need_their_metrics" {
  command = plan

  variables {
    applications = {
      orders = { operators = { totals = { task = "t", operator = "o", min_records_out_per_second = 10 } } }
    }
  }
  expect_failures = [aws_cloudwatch_metric_alarm.job]
}

run "an_even_number_of_job_managers_is_refused" {
  command = plan

  variables {
    job_manager_subnet_ids = ["subnet-a", "subnet-b"]
  }
  expect_failures = [var.job_manager_subnet_ids]
}

run "a_namespace_of_aws_is_refused" {
  command = plan

  variables {
    metrics_namespace = "AWS/KinesisAnalytics"
  }
  expect_failures = [var.metrics_namespace]
}
