# What others need to reach the cluster and to give it rights.

output "job_manager_addresses" {
  description = "Where the job managers are: `thalweg --jobmanager` takes this, and so does the setting `jobmanager.rpc.address` of clients."
  value       = local.settings["jobmanager.rpc.address"]
}

output "state_bucket" {
  description = "The bucket of checkpoints and savepoints."
  value       = aws_s3_bucket.state.bucket
}

output "kms_key_arn" {
  description = "The key of state and logs."
  value       = aws_kms_key.cluster.arn
}

output "log_group_name" {
  description = "The log group of all machines and jobs."
  value       = aws_cloudwatch_log_group.cluster.name
}

output "job_manager_security_group_id" {
  description = "The security group of the job managers."
  value       = aws_security_group.job_manager.id
}

output "task_manager_security_group_id" {
  description = "The security group of the task managers, for what jobs connect to: databases, brokers."
  value       = aws_security_group.task_manager.id
}

output "task_manager_role_arn" {
  description = "The role of jobs. Roles of other accounts must trust it, and whatever has a policy of its own must name it."
  value       = aws_iam_role.machine["taskmanager"].arn
}

output "task_manager_group_name" {
  description = "The autoscaling group of the task managers."
  value       = aws_autoscaling_group.task_manager.name
}

output "alarm_names" {
  description = "All alarms."
  value       = sort([for alarm in aws_cloudwatch_metric_alarm.job : alarm.alarm_name])
}
