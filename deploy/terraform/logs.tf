# One log group for the cluster, named as the managed service names that of an application, so that queries made for it go on working.

resource "aws_cloudwatch_log_group" "cluster" {
  name              = local.log_group
  retention_in_days = var.log_retention_days
  kms_key_id        = aws_kms_key.cluster.arn
  tags              = local.tags
}

resource "aws_cloudwatch_log_stream" "cluster" {
  name           = local.log_stream
  log_group_name = aws_cloudwatch_log_group.cluster.name
}
