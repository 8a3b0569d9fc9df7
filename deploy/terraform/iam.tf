# What machines may do: a role for job managers, one for task managers, each with the actions that its programs call and no more.
# Jobs run on task managers and have their role. Job managers read a job's graph, which needs no rights of the job.

data "aws_iam_policy_document" "machines" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

# What both kinds do: install themselves, keep checkpoints, write logs.
data "aws_iam_policy_document" "common" {
  statement {
    sid       = "Package"
    actions   = ["s3:GetObject"]
    resources = ["arn:${data.aws_partition.current.partition}:s3:::${var.package.bucket}/${var.package.key}"]
  }

  statement {
    sid       = "Security"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [var.security_secret_arn]
  }

  dynamic "statement" {
    for_each = var.security_key_arn[*]
    content {
      sid       = "SecurityKey"
      actions   = ["kms:Decrypt"]
      resources = [statement.value]
    }
  }

  statement {
    sid       = "StateBucket"
    actions   = ["s3:ListBucket", "s3:ListBucketMultipartUploads", "s3:GetBucketLocation"]
    resources = [aws_s3_bucket.state.arn]
  }

  statement {
    sid       = "State"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    resources = ["${aws_s3_bucket.state.arn}/*"]
  }

  statement {
    sid       = "StateKey"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [aws_kms_key.cluster.arn]
  }

  statement {
    sid       = "Logs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.cluster.arn}:*"]
  }
}

data "aws_iam_policy_document" "job_manager" {
  source_policy_documents = [data.aws_iam_policy_document.common.json]

  statement {
    sid       = "Metrics"
    actions   = ["cloudwatch:PutMetricData"]
    resources = ["*"]
    condition {
      test     = "StringEquals"
      variable = "cloudwatch:namespace"
      values   = [var.metrics_namespace]
    }
  }
}

data "aws_iam_policy_document" "task_manager" {
  source_policy_documents = [data.aws_iam_policy_document.common.json]

  dynamic "statement" {
    for_each = length(var.kinesis_source_arns) > 0 ? [var.kinesis_source_arns] : []
    content {
      sid       = "KinesisSources"
      actions   = ["kinesis:DescribeStreamSummary", "kinesis:ListShards", "kinesis:GetShardIterator", "kinesis:GetRecords"]
      resources = statement.value
    }
  }

  dynamic "statement" {
    for_each = length(var.kinesis_sink_arns) > 0 ? [var.kinesis_sink_arns] : []
    content {
      sid       = "KinesisSinks"
      actions   = ["kinesis:DescribeStreamSummary", "kinesis:PutRecords"]
      resources = statement.value
    }
  }

  dynamic "statement" {
    for_each = length(var.firehose_sink_arns) > 0 ? [var.firehose_sink_arns] : []
    content {
      sid       = "FirehoseSinks"
      actions   = ["firehose:DescribeDeliveryStream", "firehose:PutRecordBatch"]
      resources = statement.value
    }
  }

  dynamic "statement" {
    for_each = length(var.source_bucket_arns) + length(var.sink_bucket_arns) > 0 ? [concat(var.source_bucket_arns, var.sink_bucket_arns)] : []
    content {
      sid       = "ReadBuckets"
      actions   = ["s3:ListBucket", "s3:GetBucketLocation", "s3:GetObject"]
      resources = flatten([for arn in statement.value : [arn, "${arn}/*"]])
    }
  }

  dynamic "statement" {
    for_each = length(var.sink_bucket_arns) > 0 ? [var.sink_bucket_arns] : []
    content {
      sid       = "WriteBuckets"
      actions   = ["s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts", "s3:ListBucketMultipartUploads"]
      resources = flatten([for arn in statement.value : [arn, "${arn}/*"]])
    }
  }

  dynamic "statement" {
    for_each = length(var.kms_key_arns) > 0 ? [var.kms_key_arns] : []
    content {
      sid       = "Keys"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = statement.value
    }
  }

  dynamic "statement" {
    for_each = length(var.assumable_role_arns) > 0 ? [var.assumable_role_arns] : []
    content {
      sid       = "Roles"
      actions   = ["sts:AssumeRole"]
      resources = statement.value
    }
  }
}

locals {
  policies = {
    jobmanager  = data.aws_iam_policy_document.job_manager.json
    taskmanager = data.aws_iam_policy_document.task_manager.json
  }
}

resource "aws_iam_role" "machine" {
  for_each = local.policies

  name_prefix        = "thalweg-${var.name}-${substr(each.key, 0, 3)}-"
  description        = "The ${each.key} of the Thalweg cluster ${var.name}"
  assume_role_policy = data.aws_iam_policy_document.machines.json
  tags               = local.tags
}

resource "aws_iam_role_policy" "machine" {
  for_each = local.policies

  name   = each.key
  role   = aws_iam_role.machine[each.key].id
  policy = each.value
}

resource "aws_iam_role_policy_attachment" "session_manager" {
  for_each = var.with_session_manager ? local.policies : {}

  role       = aws_iam_role.machine[each.key].name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/AmazonSSMManagedInstanceCore"
}

resource "aws_iam_instance_profile" "machine" {
  for_each = local.policies

  name_prefix = "thalweg-${var.name}-${substr(each.key, 0, 3)}-"
  role        = aws_iam_role.machine[each.key].name
  tags        = local.tags
}
