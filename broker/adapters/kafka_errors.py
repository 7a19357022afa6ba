"""The one place where aiokafka's errors become ours. May import aiokafka and the error tree."""

from typing import Final

from aiokafka import errors

from broker.errors import Unavailable
from broker.ports import SendFailure

TOO_LARGE: Final = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError, errors.RecordTooLargeError)
"""Said of a whole batch, although one record of it may be the cause."""

PERMANENT: Final = (
    *TOO_LARGE,
    errors.IllegalArgumentError,
    errors.InvalidConfigurationError,
    errors.InvalidPartitionsError,
    errors.InvalidReplicationAssignmentError,
    errors.InvalidReplicationFactorError,
    errors.InvalidRequestError,
    errors.InvalidRequiredAcksError,
    errors.InvalidTimestampError,
    errors.InvalidTopicError,
    errors.PolicyViolationError,
    errors.TopicAuthorizationFailedError,
    errors.UnknownTopicOrPartitionError,
    errors.UnsupportedCodecError,
    errors.UnsupportedForMessageFormatError,
    errors.UnsupportedVersionError,
)
"""The same record, or the same order, will never be accepted by this log as it is configured."""

TRANSIENT: Final = (
    errors.KafkaError,
    errors.AuthenticationFailedError,
    errors.AuthenticationMethodNotSupported,
    errors.BrokerNotAvailableError,
    errors.BrokerResponseError,
    errors.Cancelled,
    errors.ClusterAuthorizationFailedError,
    errors.CommitFailedError,
    errors.ConcurrentTransactions,
    errors.CorrelationIdError,
    errors.CorruptRecordException,
    errors.DelegationTokenAuthDisabled,
    errors.DelegationTokenAuthorizationFailed,
    errors.DelegationTokenExpired,
    errors.DelegationTokenNotFound,
    errors.DelegationTokenOwnerMismatch,
    errors.DelegationTokenRequestNotAllowed,
    errors.DuplicateSequenceNumber,
    errors.FetchSessionIdNotFound,
    errors.GroupAuthorizationFailedError,
    errors.GroupCoordinatorNotAvailableError,
    errors.GroupIdNotFound,
    errors.GroupLoadInProgressError,
    errors.IllegalGenerationError,
    errors.IllegalSaslStateError,
    errors.IllegalStateError,
    errors.IncompatibleBrokerVersion,
    errors.InconsistentGroupProtocolError,
    errors.InvalidCommitOffsetSizeError,
    errors.InvalidFetchRequestError,
    errors.InvalidFetchSessionEpoch,
    errors.InvalidGroupIdError,
    errors.InvalidPrincipalType,
    errors.InvalidProducerEpoch,
    errors.InvalidProducerIdMapping,
    errors.InvalidSessionTimeoutError,
    errors.InvalidTransactionTimeout,
    errors.InvalidTxnState,
    errors.KafkaConfigurationError,
    errors.KafkaConnectionError,
    errors.KafkaProtocolError,
    errors.KafkaStorageError,
    errors.KafkaTimeoutError,
    errors.KafkaUnavailableError,
    errors.LeaderNotAvailableError,
    errors.ListenerNotFound,
    errors.LogDirNotFound,
    errors.MemberIdRequired,
    errors.MetadataEmptyBrokerList,
    errors.NoBrokersAvailable,
    errors.NoError,
    errors.NodeNotReadyError,
    errors.NonEmptyGroup,
    errors.NoOffsetForPartitionError,
    errors.NotControllerError,
    errors.NotCoordinatorForGroupError,
    errors.NotEnoughReplicasAfterAppendError,
    errors.NotEnoughReplicasError,
    errors.NotLeaderForPartitionError,
    errors.OffsetMetadataTooLargeError,
    errors.OffsetOutOfRangeError,
    errors.OperationNotAttempted,
    errors.OutOfOrderSequenceNumber,
    errors.ProducerClosed,
    errors.ProducerFenced,
    errors.QuotaViolationError,
    errors.ReassignmentInProgress,
    errors.RebalanceInProgressError,
    errors.ReplicaNotAvailableError,
    errors.RequestTimedOutError,
    errors.SaslAuthenticationFailed,
    errors.SecurityDisabled,
    errors.StaleControllerEpochError,
    errors.StaleLeaderEpochCodeError,
    errors.StaleMetadata,
    errors.TooManyInFlightRequests,
    errors.TopicAlreadyExistsError,
    errors.TransactionalIdAuthorizationFailed,
    errors.TransactionCoordinatorFenced,
    errors.UnknownError,
    errors.UnknownMemberIdError,
    errors.UnknownProducerId,
    errors.UnrecognizedBrokerVersion,
    errors.UnsupportedSaslMechanismError,
)
"""Time, or an operator, may mend it: the caller keeps the record and tries again."""

CLIENT_ERRORS: Final = (
    errors.KafkaError,
    errors.ConsumerStoppedError,
    errors.IllegalOperation,
    OSError,
    TimeoutError,
)
"""All that aiokafka raises on purpose, and what it lets through from the socket."""


def is_permanent(exc: BaseException) -> bool:
    """Whether trying the same thing again can never succeed."""
    return type(exc) in PERMANENT


def is_unreadable(exc: Exception) -> bool:
    """Whether a poll failed on the records themselves, not on the way to them.

    aiokafka wraps what its record parser notices, lets through what a decompressor raises, and repeats it for ever.
    """
    if isinstance(exc, errors.CorruptRecordException | errors.RecordTooLargeError | errors.UnsupportedCodecError):
        return True
    return not isinstance(exc, CLIENT_ERRORS)


def unavailable(exc: BaseException, what: str, address: object) -> Unavailable:
    """Return the error of a failed operation `what` on the log at `address`."""
    servers = ", ".join(map(str, address)) if isinstance(address, list | tuple) else str(address)
    reason = "no answer in time" if isinstance(exc, TimeoutError) and not str(exc) else str(exc) or repr(exc)
    return Unavailable(f"Kafka at {servers}: {what}: {' '.join(reason.split())}")


def failure(exc: BaseException) -> SendFailure:
    """Return why a record was not written."""
    return SendFailure(reason=" ".join((str(exc) or repr(exc)).split()), permanent=is_permanent(exc))
