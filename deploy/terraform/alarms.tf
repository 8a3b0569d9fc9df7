# The alarms that are recommended for every job, with the limits that are normal for it.
#
# A metric has four samples a minute, so alarms take averages and maxima, never sums. Each alarm is a list of metrics and what is made
# of them: its last expression, or its only metric.

locals {
  # The same for every job.
  of_all = merge([
    for job, normal in var.applications : {
      "${job}: downtime" = {
        about      = "The job does not run."
        job        = job
        metrics    = { m1 = { name = "downtime", stat = "Average", dimensions = {} } }
        expression = null
        above      = 0
        # A cluster that is gone reports nothing at all.
        missing = "breaching"
      }
      "${job}: failing checkpoints" = {
        about      = "Checkpoints fail one after the other."
        job        = job
        metrics    = { m1 = { name = "numberOfFailedCheckpoints", stat = "Average", dimensions = {} } }
        expression = "RATE(m1)"
        above      = 0
      }
    }
  ]...)

  # One metric of the whole job that has a limit.
  of_jobs = merge([
    for job, normal in var.applications : {
      for alarm in [
        { what = "heap", name = "heapMemoryUtilization", limit = normal.max_heap_percent, expression = null, about = "Task managers run out of memory: add some." },
        { what = "CPU", name = "cpuUtilization", limit = normal.max_cpu_percent, expression = null, about = "Task managers have nothing in reserve: add some." },
        { what = "slow checkpoints", name = "lastCheckpointDuration", limit = normal.max_checkpoint_duration_ms, expression = null, about = "Checkpoints take longer than usual: look for back pressure and growing state." },
        { what = "large checkpoints", name = "lastCheckpointSize", limit = normal.max_checkpoint_size_bytes, expression = null, about = "State is larger than usual: does anything never expire?" },
        { what = "threads", name = "threadCount", limit = normal.max_threads, expression = null, about = "There are more threads than usual: somebody starts them and does not end them." },
        { what = "memory stalls", name = "oldGenerationGCTime", limit = normal.max_memory_stall_percent, expression = "RATE(m1) * 60 * 100 / 60000", about = "Tasks wait for memory for too large a part of each minute." },
        { what = "more memory stalls", name = "oldGenerationGCCount", limit = normal.max_memory_stall_rate, expression = "RATE(m1)", about = "Tasks wait for memory more often than usual." },
        ] : "${job}: ${alarm.what}" => {
        about      = alarm.about
        job        = job
        metrics    = { m1 = { name = alarm.name, stat = "Maximum", dimensions = {} } }
        expression = alarm.expression
        above      = alarm.limit
      } if alarm.limit != null
    }
  ]...)

  of_sources = merge([
    for job, normal in var.applications : {
      for stream, limit in normal.max_millis_behind_latest : "${job}: behind ${stream}" => {
        about      = "The job falls behind the stream: add task managers, or look for what holds it up."
        job        = job
        metrics    = { m1 = { name = "millisBehindLatest", stat = "Maximum", dimensions = { StreamName = stream } } }
        expression = null
        above      = limit
      }
    }
  ]...)

  of_tasks = merge([
    for job, normal in var.applications : {
      for task, limit in normal.max_back_pressure_percent : "${job}: back pressure of ${task}" => {
        about      = "The task waits for those behind it: one of them is the bottleneck."
        job        = job
        metrics    = { m1 = { name = "backPressuredTimeMsPerSecond", stat = "Maximum", dimensions = { Task = task } } }
        expression = null
        above      = limit * 10
        minutes    = 5
      }
    }
  ]...)

  of_operators = merge(flatten([
    for job, normal in var.applications : [
      for name, operator in normal.operators : {
        for alarm in [
          {
            what       = "too few records"
            limit      = operator.min_records_out_per_second
            about      = "The operator writes less than it ever does in normal times."
            metrics    = { m1 = "numRecordsOutPerSecond" }
            stat       = "Average"
            expression = null
            is_below   = true
          },
          {
            what       = "watermark lag"
            limit      = operator.max_watermark_lag_ms
            about      = "The operator works on ever older events, or one of its inputs sends no watermarks any more."
            metrics    = { m1 = "currentOutputWatermark", m2 = "currentInputWatermark" }
            stat       = "Minimum"
            expression = "m1 - m2"
            is_below   = false
          },
          ] : "${job}: ${alarm.what} of ${name}" => {
          about = alarm.about
          job   = job
          metrics = {
            for id, metric in alarm.metrics : id => {
              name       = metric
              stat       = alarm.stat
              dimensions = { Task = operator.task, Operator = operator.operator }
            }
          }
          expression = alarm.expression
          above      = alarm.is_below ? null : alarm.limit
          below      = alarm.is_below ? alarm.limit : null
        } if alarm.limit != null
      }
    ]
  ])...)

  alarms = merge(local.of_all, local.of_jobs, local.of_sources, local.of_tasks, local.of_operators)

  # The coarsest level at which every metric of an alarm is reported.
  needs_operators = length(local.of_operators) > 0
  needs_tasks     = length(local.of_tasks) > 0
}

resource "aws_cloudwatch_metric_alarm" "job" {
  for_each = local.alarms

  alarm_name          = "thalweg ${var.name} ${each.key}"
  alarm_description   = each.value.about
  comparison_operator = try(each.value.below, null) == null ? "GreaterThanThreshold" : "LessThanThreshold"
  threshold           = try(each.value.below, null) == null ? each.value.above : each.value.below
  evaluation_periods  = try(each.value.minutes, 3)
  datapoints_to_alarm = try(each.value.minutes, 3)
  treat_missing_data  = try(each.value.missing, "missing")
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
  tags                = local.tags

  dynamic "metric_query" {
    for_each = each.value.metrics

    content {
      id          = metric_query.key
      return_data = each.value.expression == null

      metric {
        namespace   = var.metrics_namespace
        metric_name = metric_query.value.name
        stat        = metric_query.value.stat
        period      = 60
        dimensions  = merge({ Application = each.value.job }, metric_query.value.dimensions)
      }
    }
  }

  dynamic "metric_query" {
    for_each = each.value.expression[*]

    content {
      id          = "e1"
      expression  = metric_query.value
      label       = each.key
      return_data = true
    }
  }

  lifecycle {
    precondition {
      condition     = !local.needs_operators || contains(["OPERATOR", "PARALLELISM"], var.metrics_level)
      error_message = "Alarms of operators need `metrics_level = \"OPERATOR\"`: at a coarser level their metrics are not reported."
    }
    precondition {
      condition     = !local.needs_tasks || var.metrics_level != "APPLICATION"
      error_message = "Alarms of tasks need `metrics_level = \"TASK\"` or finer: at the level of applications their metrics are not reported."
    }
  }
}
