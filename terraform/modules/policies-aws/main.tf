# Who may do what with the objects of a store, as documents. No resources: they can be rendered and
# evaluated without a provider, which the tests of this repository do.
#
# Keys are those of docs/format.md, "Objects", below the name of a repository.

locals {
  store = "${var.bucket_arn}/${var.prefix}"

  # Twenty digits, as a pattern: `log/*` would have the hint among the entries, which is overwritten.
  sequence = "????????????????????"

  # Created once and never changed: put-if-absent alone.
  created_once = [
    "${local.store}*/repo.json",
    "${local.store}*/log/${local.sequence}.json",
    "${local.store}*/checkpoints/*",
    "${local.store}*/objects/*",
    "${local.store}*/shards/*",
    "${local.store}*/staging/*",
    "${local.store}*/tlog/tile/*",
    "${local.store}*/tlog/heads/*",
    "${local.store}.quarr/auth/*",
    "${local.store}.quarr/requests/*",
    "${local.store}.quarr/uploads/*",
    # Each server tries at its start whether the store creates objects once.
    "${local.store}_probe-*",
  ]

  # Never trusted (the hint), signed (the checkpoint), or no data (how far jobs are).
  overwritten = [
    "${local.store}*/log/_hint.json",
    "${local.store}*/tlog/checkpoint",
    "${local.store}.quarr/jobs/*",
    "${local.store}.quarr/commands/*",
  ]

  # What collecting garbage deletes. The log and API keys are not in it: no role deletes history.
  collected = [
    "${local.store}*/objects/*",
    "${local.store}*/shards/*",
    "${local.store}*/staging/*",
    "${local.store}.quarr/jobs/*",
    "${local.store}.quarr/commands/*",
    "${local.store}.quarr/requests/*",
    "${local.store}.quarr/uploads/*",
    "${local.store}_probe-*",
  ]

  read = [
    {
      Sid      = "ReadObjects"
      Effect   = "Allow"
      Action   = ["s3:GetObject"]
      Resource = ["${local.store}*"]
    },
    {
      # Without this S3 answers 403 for an object that is not there, and a condition on the prefix is
      # not met by such a request: absence is how the newest log entry is found.
      Sid      = "ListBucket"
      Effect   = "Allow"
      Action   = ["s3:ListBucket"]
      Resource = [var.bucket_arn]
    },
  ]

  write = [
    {
      Sid       = "CreateObjects"
      Effect    = "Allow"
      Action    = ["s3:PutObject"]
      Resource  = local.created_once
      Condition = { Null = { "s3:if-none-match" = "false" } }
    },
    {
      Sid      = "OverwriteHints"
      Effect   = "Allow"
      Action   = ["s3:PutObject"]
      Resource = local.overwritten
    },
  ]

  delete = [
    {
      Sid      = "DeleteGarbage"
      Effect   = "Allow"
      Action   = ["s3:DeleteObject"]
      Resource = local.collected
    },
  ]

  decrypt = [for arn in var.kms_key_arn[*] : {
    Sid      = "Decrypt"
    Effect   = "Allow"
    Action   = ["kms:Decrypt"]
    Resource = [arn]
  }]

  encrypt = [for arn in var.kms_key_arn[*] : {
    Sid      = "Encrypt"
    Effect   = "Allow"
    Action   = ["kms:GenerateDataKey"]
    Resource = [arn]
  }]

  everything = [var.bucket_arn, "${var.bucket_arn}/*"]

  only_gc_deletes = [for roles in [var.gc_role_arns] : {
    Sid       = "OnlyGcDeletes"
    Effect    = "Deny"
    Principal = "*"
    Action    = ["s3:DeleteObject", "s3:DeleteObjectVersion"]
    Resource  = ["${local.store}*"]
    Condition = { StringNotEquals = { "aws:PrincipalArn" = roles } }
  } if length(roles) > 0]

  guard = [
    {
      Sid       = "OnlyTls"
      Effect    = "Deny"
      Principal = "*"
      Action    = ["s3:*"]
      Resource  = local.everything
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    },
    {
      Sid       = "OnlyNewTls"
      Effect    = "Deny"
      Principal = "*"
      Action    = ["s3:*"]
      Resource  = local.everything
      Condition = { NumericLessThan = { "s3:TlsVersion" = "1.2" } }
    },
    {
      # The parts of a multipart upload cannot carry the header; the request that completes it must.
      # Source: Amazon S3 User Guide, "Enforce conditional writes on Amazon S3 buckets".
      Sid       = "CreateOnly"
      Effect    = "Deny"
      Principal = "*"
      Action    = ["s3:PutObject"]
      Resource  = local.created_once
      Condition = {
        Null = { "s3:if-none-match" = "true" }
        Bool = { "s3:ObjectCreationOperation" = "true" }
      }
    },
  ]
}
